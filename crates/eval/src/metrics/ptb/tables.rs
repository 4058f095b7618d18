//! What the tokenizer knows by heart: characters and abbreviations.

/// Abbreviations that keep their period, whatever follows.
const ABBREVIATIONS: &str = " \
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue tues wed thu thurs fri \
    ala ariz calif colo conn ct dak fla ga ind kan kans ky md mich minn mo mont neb nev okla penn tenn va vt wis wisc wyo \
    inc co cos corp pty ltd plc rt bancorp bhd assn univ intl sys tel est ext sq jr sr bros esq etc al seq bldg ph.d ed.d ";
/// Those among them that stand before a name: they do not look at what follows.
const TITLES: &str = " \
    mr mrs ms dr drs prof profs sen sens rep reps atty attys lt col gen messrs gov govs adm rev maj sgt cpl pvt capt st ste \
    ave pres lieut hon brig cmdr comdr pfc spc supt supts det mt ft adj adv asst assoc ens insp mlle mme msgr sfc \
    invt elec natl mfg mtg dept blvd rd wm jos cie cf treas ph vs ";
/// Those that do so with a capital letter only: in small letters they are words.
const CAPITALIZED: &str = " az ark del ill la mass miss ore pa tex wash ";
/// Those that do not in capitals.
const NOT_IN_CAPITALS: &str = " pty mfg mtg ";
/// Those that do so before a number only.
const BEFORE_NUMBERS: &str = " pp ca fig figs prop no nos art op ";
/// Words with a capital letter after which a letter and a period before are the end of a sentence: `It is I. The dog`.
const BEGINNINGS: &str = " A About According Additionally After All Also Although An Another As At Before Both But By Did During Each Earlier \
    Following For From He Her Here His How However If In It Its Last Later Many More Most Mr. Mrs. Ms. Now On Once One Other Our She Since So \
    Some Such That The Their Then There These They This Two Under Upon We When While What Who Why Yet You ";

fn lists(list: &str, word: &str) -> bool {
    !word.is_empty()
        && list.match_indices(word).any(|(at, _)| list[..at].ends_with(' ') && list[at + word.len()..].starts_with(' '))
}

/// How far behind its period an abbreviation of these letters (and inner periods) looks; none where they are no abbreviation.
pub fn abbreviation(word: &str, before_number: bool) -> Option<usize> {
    let small = word.to_lowercase();
    let capitals = word.len() > 1 && !word.chars().any(char::is_lowercase);
    if capitals && lists(NOT_IN_CAPITALS, &small) {
        return None;
    }
    let capitalized = lists(CAPITALIZED, &small) && word.starts_with(char::is_uppercase);
    if lists(ABBREVIATIONS, &small) || capitalized {
        return Some(2);
    }
    (lists(TITLES, &small) || (before_number && lists(BEFORE_NUMBERS, &small))).then_some(0)
}

/// Whether a word begins a sentence after a single letter with a period.
pub fn begins_sentence(word: &str) -> bool {
    lists(BEGINNINGS, word)
}

/// Letters, and the marks on them.
pub fn is_letter(c: char) -> bool {
    matches!(c, '\u{ad}' | '\u{2c2}'..='\u{2c5}' | '\u{2d2}'..='\u{2df}' | '\u{2e5}'..='\u{36f}' | '\u{483}'..='\u{487}')
        || (c.is_alphabetic() && !matches!(c, '\u{24b6}'..='\u{24e9}' | '\u{2160}'..='\u{2188}'))
}

/// Signs that are tokens of their own. Others that no rule knows, pictures above all, are left out.
pub fn is_sign(c: char) -> bool {
    matches!(c,
        '%' | '+' | '&' | '~' | '^' | '|' | '\\' | '=' | '/' | '<' | '>' | '$' | '?' | '!'
        | '\u{a1}' | '\u{a5}'..='\u{a9}' | '\u{ac}' | '\u{ae}'..='\u{b4}' | '\u{b6}'..='\u{b9}' | '\u{bf}' | '\u{d7}' | '\u{f7}'
        | '\u{37e}' | '\u{387}' | '\u{589}' | '\u{5be}' | '\u{5c0}' | '\u{5c3}' | '\u{5c6}' | '\u{5f3}'..='\u{5f4}'
        | '\u{600}'..='\u{603}' | '\u{606}'..='\u{60c}' | '\u{614}' | '\u{61b}' | '\u{61e}'..='\u{61f}' | '\u{66a}' | '\u{66d}'
        | '\u{6d4}' | '\u{700}'..='\u{70d}' | '\u{7f6}'..='\u{7f8}' | '\u{964}'..='\u{965}' | '\u{e3f}' | '\u{e4f}' | '\u{1fbd}'
        | '\u{2016}'..='\u{2017}' | '\u{201a}' | '\u{201e}'..='\u{2023}' | '\u{2030}'..='\u{2038}' | '\u{203b}'
        | '\u{203e}'..='\u{2042}' | '\u{2044}' | '\u{2070}' | '\u{2074}'..='\u{207e}' | '\u{2080}'..='\u{208e}' | '\u{20a4}'
        | '\u{2100}'..='\u{214f}' | '\u{2155}'..='\u{215e}' | '\u{2190}'..='\u{2bff}'
        | '\u{3001}'..='\u{3002}' | '\u{3012}' | '\u{30fb}' | '\u{ff01}'..='\u{ff0f}' | '\u{ff1a}'..='\u{ff20}'
        | '\u{ff3b}'..='\u{ff40}' | '\u{ff5b}'..='\u{ff65}' | '\u{ffe0}'..='\u{ffe1}' | '\u{ffe5}'..='\u{ffe6}')
}

/// Characters that become another word.
pub fn replaced(c: char) -> Option<&'static str> {
    Some(match c {
        '\u{80}' | '\u{a4}' | '\u{20a0}' | '\u{20ac}' => "$",
        '\u{a3}' => "#",
        '\u{a2}' => "cents",
        '\u{bc}' => "1/4",
        '\u{bd}' => "1/2",
        '\u{be}' => "3/4",
        '\u{2153}' => "1/3",
        '\u{2154}' => "2/3",
        '(' => "-lrb-",
        ')' => "-rrb-",
        '[' => "-lsb-",
        ']' => "-rsb-",
        '{' => "-lcb-",
        '}' => "-rcb-",
        _ => return None,
    })
}

/// Apostrophes: straight, curly, and the curly one of Windows' code page at its wrong place.
pub fn is_apostrophe(c: char) -> bool {
    matches!(c, '\'' | '\u{92}' | '\u{2019}')
}

/// Apostrophes, and what is written for them inside a word.
pub fn is_inner_apostrophe(c: char) -> bool {
    is_apostrophe(c) || matches!(c, '`' | '\u{91}' | '\u{2018}' | '\u{201b}')
}

/// Quotation marks.
pub fn is_quote(c: char) -> bool {
    is_inner_apostrophe(c)
        || matches!(
            c,
            '"' | '\u{93}' | '\u{94}' | '\u{201c}' | '\u{201d}' | '\u{ab}' | '\u{bb}' | '\u{2039}' | '\u{203a}'
        )
}

/// Dashes that are not hyphens.
pub fn is_dash(c: char) -> bool {
    matches!(c, '\u{96}' | '\u{97}' | '\u{2013}'..='\u{2015}')
}
