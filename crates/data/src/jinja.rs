//! Templates of folders, whose authors nobody knows: rendering takes bounded memory and time.
//!
//! The engine counts steps, but one step can join texts that double each time, compare lists of lists of lists or fill a line up to any
//! width. So the syntax tree is built anew before it is compiled: whatever reads or makes values of any size passes the filter
//! [`meter::METER`], which takes their size from one allowance per rendering; what makes more than it reads has a size that is known
//! before ([`meter`]), or is not there. Neither are includes and inheritance: a folder has one template.

mod meter;

use std::collections::BTreeMap;

use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Value,
    machinery::{
        CodeGenerator, Vm, WhitespaceConfig,
        ast::{
            BinOp, BinOpKind, Call, CallArg, CallBlock, Compare, CompareOp, Const, Do, EmitExpr, Expr, Filter,
            FilterBlock, ForLoop, GetAttr, GetItem, IfCond, IfExpr, List, Macro, Map, Set, SetBlock, Slice, Spanned,
            Stmt, Template as Root, Test, UnaryOp, UnaryOpKind, Var, WithBlock,
        },
        make_string_output, parse,
    },
    syntax::SyntaxConfig,
};

/// The template's name in errors.
const NAME: &str = "chat_template";
/// Steps of a rendering: far more than a turn of a conversation needs.
const FUEL: u64 = 1_000_000;
/// Calls within calls; one call of a macro counts as four.
const RECURSION: usize = 100;

/// A template that can be rendered.
pub(crate) struct Template {
    environment: Environment<'static>,
    source: String,
}

impl Template {
    /// # Errors
    /// A text that is no template, or one with statements that are not supported.
    pub fn new(source: String) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(RECURSION);
        meter::install(&mut environment);
        metered(&source)?;
        Ok(Self { environment, source })
    }

    /// The text that the template makes of variables.
    ///
    /// # Errors
    /// What the template raises; a template that takes too many steps or makes too much text.
    pub fn render(&self, variables: Value) -> Result<String, Error> {
        let mut code = CodeGenerator::new(NAME, &self.source);
        code.compile_stmt(&metered(&self.source)?);
        let (instructions, blocks) = code.finish();
        let (mut text, no_blocks) = (String::new(), BTreeMap::new());
        debug_assert!(blocks.is_empty(), "blocks are not supported");
        let mut output = make_string_output(&mut text);
        Vm::new(&self.environment).eval(&instructions, variables, &no_blocks, &mut output, AutoEscape::None)?;
        drop(output);
        Ok(text)
    }
}

/// The syntax tree of a template with its operations metered.
fn metered(source: &str) -> Result<Stmt<'_>, Error> {
    // As transformers sets up its engine.
    let whitespace = WhitespaceConfig { keep_trailing_newline: false, lstrip_blocks: true, trim_blocks: true };
    statement(&parse(source, NAME, SyntaxConfig, whitespace)?)
}

fn statements<'a>(list: &[Stmt<'a>]) -> Result<Vec<Stmt<'a>>, Error> {
    list.iter().map(statement).collect()
}

fn statement<'a>(from: &Stmt<'a>) -> Result<Stmt<'a>, Error> {
    Ok(match from {
        Stmt::Template(s) => Stmt::Template(Spanned::new(Root { children: statements(&s.children)? }, s.span())),
        Stmt::EmitExpr(s) => Stmt::EmitExpr(Spanned::new(EmitExpr { expr: read(&s.expr) }, s.span())),
        Stmt::EmitRaw(s) => {
            let text = Expr::Const(Spanned::new(Const { value: Value::from(s.raw) }, s.span()));
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: metering(text) }, s.span()))
        }
        Stmt::ForLoop(s) => {
            let new = ForLoop {
                target: target(&s.target),
                iter: read(&s.iter),
                filter_expr: s.filter_expr.as_ref().map(expression),
                recursive: s.recursive,
                body: statements(&s.body)?,
                else_body: statements(&s.else_body)?,
            };
            Stmt::ForLoop(Spanned::new(new, s.span()))
        }
        Stmt::IfCond(s) => {
            let new = IfCond {
                expr: expression(&s.expr),
                true_body: statements(&s.true_body)?,
                false_body: statements(&s.false_body)?,
            };
            Stmt::IfCond(Spanned::new(new, s.span()))
        }
        Stmt::WithBlock(s) => {
            let assignments = s.assignments.iter().map(|(name, value)| (target(name), read(value))).collect();
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: statements(&s.body)? }, s.span()))
        }
        Stmt::Set(s) => Stmt::Set(Spanned::new(Set { target: target(&s.target), expr: read(&s.expr) }, s.span())),
        Stmt::SetBlock(s) => {
            let filter = s.filter.as_ref().map(expression);
            let new = SetBlock { target: target(&s.target), filter, body: statements(&s.body)? };
            Stmt::SetBlock(Spanned::new(new, s.span()))
        }
        Stmt::FilterBlock(s) => {
            let new = FilterBlock { filter: expression(&s.filter), body: statements(&s.body)? };
            Stmt::FilterBlock(Spanned::new(new, s.span()))
        }
        Stmt::Macro(s) => Stmt::Macro(declaration(s)?),
        Stmt::CallBlock(s) => {
            let new = CallBlock { call: call(&s.call), macro_decl: declaration(&s.macro_decl)? };
            Stmt::CallBlock(Spanned::new(new, s.span()))
        }
        Stmt::Do(s) => Stmt::Do(Spanned::new(Do { call: call(&s.call) }, s.span())),
        Stmt::Continue(s) => Stmt::Continue(Spanned::new(minijinja::machinery::ast::Continue, s.span())),
        Stmt::Break(s) => Stmt::Break(Spanned::new(minijinja::machinery::ast::Break, s.span())),
        Stmt::AutoEscape(s) => return Err(unsupported("autoescape", s.span().start_line)),
        Stmt::Block(s) => return Err(unsupported("block", s.span().start_line)),
        Stmt::Import(s) => return Err(unsupported("import", s.span().start_line)),
        Stmt::FromImport(s) => return Err(unsupported("from", s.span().start_line)),
        Stmt::Extends(s) => return Err(unsupported("extends", s.span().start_line)),
        Stmt::Include(s) => return Err(unsupported("include", s.span().start_line)),
    })
}

fn unsupported(statement: &str, line: u16) -> Error {
    Error::new(ErrorKind::InvalidOperation, format!("the statement `{statement}` in line {line} is not supported"))
}

fn declaration<'a>(from: &Spanned<Macro<'a>>) -> Result<Spanned<Macro<'a>>, Error> {
    let new = Macro {
        name: from.name,
        args: from.args.iter().map(expression).collect(),
        defaults: from.defaults.iter().map(expression).collect(),
        body: statements(&from.body)?,
    };
    Ok(Spanned::new(new, from.span()))
}

/// What is assigned to: names, or several at once, which are no list that holds something.
fn target<'a>(from: &Expr<'a>) -> Expr<'a> {
    match from {
        Expr::List(e) => {
            let items = e.items.iter().map(target).collect();
            Expr::List(Spanned::new(List { items }, e.span()))
        }
        other => expression(other),
    }
}

/// An expression of which what it holds is counted.
fn read<'a>(from: &Expr<'a>) -> Expr<'a> {
    metering(expression(from))
}

fn metering(of: Expr<'_>) -> Expr<'_> {
    match &of {
        Expr::Filter(filter) if filter.name == meter::METER => of,
        _ => through(meter::METER, of, Vec::new()),
    }
}

/// An expression behind a filter.
fn through<'a>(name: &'a str, expr: Expr<'a>, args: Vec<CallArg<'a>>) -> Expr<'a> {
    let span = expr.span();
    Expr::Filter(Spanned::new(Filter { name, expr: Some(expr), args }, span))
}

fn expression<'a>(from: &Expr<'a>) -> Expr<'a> {
    let optional = |expr: &Option<Expr<'a>>| expr.as_ref().map(expression);
    match from {
        Expr::Var(e) => Expr::Var(Spanned::new(Var { id: e.id }, e.span())),
        Expr::Const(e) => Expr::Const(Spanned::new(Const { value: e.value.clone() }, e.span())),
        Expr::Slice(e) => {
            let (start, stop, step) = (optional(&e.start), optional(&e.stop), optional(&e.step));
            metering(Expr::Slice(Spanned::new(Slice { expr: read(&e.expr), start, stop, step }, e.span())))
        }
        Expr::UnaryOp(e) => {
            // It is neither `Copy` nor `Clone`.
            let op = if matches!(e.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expression(&e.expr) }, e.span()))
        }
        Expr::BinOp(e) => match e.op {
            BinOpKind::ScAnd | BinOpKind::ScOr => {
                let new = BinOp { op: e.op, left: expression(&e.left), right: expression(&e.right) };
                Expr::BinOp(Spanned::new(new, e.span()))
            }
            BinOpKind::Mul => metering(through(meter::TIMES, read(&e.left), vec![CallArg::Pos(read(&e.right))])),
            op => {
                metering(Expr::BinOp(Spanned::new(BinOp { op, left: read(&e.left), right: read(&e.right) }, e.span())))
            }
        },
        Expr::Compare(e) => {
            let ops = e.ops.iter().map(|one| CompareOp { op: one.op, expr: read(&one.expr) }).collect();
            Expr::Compare(Spanned::new(Compare { expr: read(&e.expr), ops }, e.span()))
        }
        Expr::IfExpr(e) => {
            let new = IfExpr {
                test_expr: expression(&e.test_expr),
                true_expr: expression(&e.true_expr),
                false_expr: optional(&e.false_expr),
            };
            Expr::IfExpr(Spanned::new(new, e.span()))
        }
        Expr::Filter(e) => {
            let new = Filter { name: e.name, expr: e.expr.as_ref().map(read), args: short(&e.args) };
            metering(Expr::Filter(Spanned::new(new, e.span())))
        }
        Expr::Test(e) => {
            let new = Test { name: e.name, expr: read(&e.expr), args: short(&e.args) };
            Expr::Test(Spanned::new(new, e.span()))
        }
        Expr::GetAttr(e) => Expr::GetAttr(Spanned::new(GetAttr { expr: expression(&e.expr), name: e.name }, e.span())),
        Expr::GetItem(e) => {
            let new = GetItem { expr: read(&e.expr), subscript_expr: read(&e.subscript_expr) };
            Expr::GetItem(Spanned::new(new, e.span()))
        }
        Expr::Call(e) => metering(Expr::Call(call(e))),
        Expr::List(e) => {
            let items = e.items.iter().map(expression).collect();
            metering(Expr::List(Spanned::new(List { items }, e.span())))
        }
        Expr::Map(e) => {
            let (keys, values) = (e.keys.iter().map(read).collect(), e.values.iter().map(expression).collect());
            metering(Expr::Map(Spanned::new(Map { keys, values }, e.span())))
        }
    }
}

/// A call; functions and methods keep their form, by which the engine knows them.
fn call<'a>(from: &Spanned<Call<'a>>) -> Spanned<Call<'a>> {
    let expr = match &from.expr {
        Expr::GetAttr(method) => {
            Expr::GetAttr(Spanned::new(GetAttr { expr: read(&method.expr), name: method.name }, method.span()))
        }
        other => expression(other),
    };
    Spanned::new(Call { expr, args: arguments(&from.args, read) }, from.span())
}

/// Arguments of filters and tests, which may be looked at once for each item of a list.
fn short<'a>(from: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    arguments(from, |expr| through(meter::ARGUMENT, expression(expr), Vec::new()))
}

fn arguments<'a>(from: &[CallArg<'a>], expr: impl Fn(&Expr<'a>) -> Expr<'a>) -> Vec<CallArg<'a>> {
    let one = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(value) => CallArg::Pos(expr(value)),
        CallArg::Kwarg(name, value) => CallArg::Kwarg(name, expr(value)),
        CallArg::PosSplat(value) => CallArg::PosSplat(expr(value)),
        CallArg::KwargSplat(value) => CallArg::KwargSplat(expr(value)),
    };
    from.iter().map(one).collect()
}
