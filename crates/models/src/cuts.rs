//! What is left of layers from which rows and columns were removed as a whole, and of learned queries, and its file.

use std::{collections::BTreeMap, path::Path};

use ressa_checkpoint::{LeftOfTower, Smaller, of_layer};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{ModelError, TensorMap, Tower, weights};

/// The header entry that tells the file from others.
const NOTE: &str = "ressa.structure";
/// The learned queries: what they are called in a checkpoint and in the file.
pub const QUERY_TOKENS: &str = "query_tokens";
/// Endings of the vectors of a layer.
const ENDINGS: [&str; 2] = [".rows", ".columns"];

/// What is left of a layer: rows and columns in ascending order, i64; `None` where all are.
#[derive(Debug, Default)]
pub struct LayerCut {
    /// Rows that are left.
    pub rows: Option<Tensor>,
    /// Columns that are left.
    pub columns: Option<Tensor>,
}

impl LayerCut {
    /// Rows and columns that are left of so many.
    pub fn size(&self, (rows, columns): (i64, i64)) -> (i64, i64) {
        let left = |kept: &Option<Tensor>, all: i64| kept.as_ref().map_or(all, |kept| kept.size()[0]);
        (left(&self.rows, rows), left(&self.columns, columns))
    }

    /// What is left of a matrix `[out, in]`.
    pub fn of(&self, matrix: &Tensor) -> Tensor {
        let device = matrix.device();
        let rows = match &self.rows {
            Some(rows) => matrix.index_select(0, &rows.to_device(device)),
            None => matrix.shallow_clone(),
        };
        match &self.columns {
            Some(columns) => rows.index_select(1, &columns.to_device(device)),
            None => rows,
        }
    }

    /// The whole matrix `[out, in]` of which a part is left; zero elsewhere.
    pub fn spread(&self, left: &Tensor, (rows, columns): (i64, i64)) -> Tensor {
        let (kind, device) = (left.kind(), left.device());
        let wide = match &self.columns {
            Some(kept) => {
                Tensor::zeros([left.size()[0], columns], (kind, device)).index_copy(1, &kept.to_device(device), left)
            }
            None => left.shallow_clone(),
        };
        match &self.rows {
            Some(kept) => Tensor::zeros([rows, columns], (kind, device)).index_copy(0, &kept.to_device(device), &wide),
            None => wide,
        }
    }

    /// True where a matrix of this size is left, bool `[out, in]`.
    pub fn keep(&self, (rows, columns): (i64, i64), device: tch::Device) -> Tensor {
        let (rows_left, columns_left) = self.size((rows, columns));
        self.spread(&Tensor::ones([rows_left, columns_left], (Kind::Bool, device)), (rows, columns))
    }

    fn shallow_clone(&self) -> Self {
        let clone = |kept: &Option<Tensor>| kept.as_ref().map(Tensor::shallow_clone);
        Self { rows: clone(&self.rows), columns: clone(&self.columns) }
    }
}

/// Groups that are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// How many.
    pub left: u64,
    /// Of how many.
    pub of: u64,
}

/// Blocks that are left of a stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackCut {
    /// Path of the stack in a checkpoint, such as `vision_model.encoder.layers`.
    pub path: String,
    /// Numbers of the blocks that are left, in ascending order.
    pub blocks: Vec<usize>,
    /// Blocks that there were.
    pub of: usize,
}

/// Numbers of groups of a tower, the same in all of its blocks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerNumbers {
    /// Heads of a layer; `None` where all are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub heads: Option<Left>,
    /// Channels of a feed-forward layer; `None` where all are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channels: Option<Left>,
    /// Stacks that have lost blocks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stacks: Vec<StackCut>,
    /// Learned queries; `None` where all are left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queries: Option<Left>,
}

/// What is left of a tower.
#[derive(Debug, Default)]
pub struct TowerCut {
    /// Numbers of groups.
    pub numbers: TowerNumbers,
    /// Layers that have lost something, by module path.
    pub layers: BTreeMap<String, LayerCut>,
    /// Columns that are left, i64, of tensors that have one for each head, by name.
    pub tables: BTreeMap<String, Tensor>,
    /// Learned queries that are left, i64 in ascending order; `None` where all are.
    pub queries: Option<Tensor>,
}

impl TowerCut {
    /// Writes what is left: a byte for each row and column of a layer that has lost some, and for each query, 1 where it is left; the numbers go into the header.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn save(&self, path: &Path, size: impl Fn(&str) -> Option<(i64, i64)>) -> Result<(), ModelError> {
        let mut flags = TensorMap::new();
        let flag = |kept: &Tensor, of: i64| {
            let ones = Tensor::ones([kept.size()[0]], (Kind::Uint8, kept.device()));
            Tensor::zeros([of], (Kind::Uint8, kept.device())).index_copy(0, kept, &ones)
        };
        let unknown = |layer: &str| ModelError::UnknownLayers(vec![layer.to_owned()]);
        for (layer, LayerCut { rows, columns }) in &self.layers {
            let (out, inputs) = size(layer).ok_or_else(|| unknown(layer))?;
            for (kept, (ending, of)) in [rows, columns].into_iter().zip(ENDINGS.into_iter().zip([out, inputs])) {
                if let Some(kept) = kept {
                    flags.insert(format!("{layer}{ending}"), flag(kept, of));
                }
            }
        }
        for (table, columns) in &self.tables {
            let (_, of) = size(table).ok_or_else(|| unknown(table))?;
            flags.insert(format!("{table}{}", ENDINGS[1]), flag(columns, of));
        }
        if let (Some(kept), Some(Left { of, .. })) = (&self.queries, self.numbers.queries) {
            flags.insert(QUERY_TOKENS.to_owned(), flag(kept, of as i64));
        }
        let numbers = serde_json::to_string(&self.numbers).map_err(|e| ModelError::file(path, e))?;
        weights::write(path, &flags, (NOTE, numbers))
    }

    /// Reads what [`TowerCut::save`] wrote.
    ///
    /// # Errors
    /// A file of something else.
    pub fn load(path: &Path) -> Result<Self, ModelError> {
        let (flags, numbers) = weights::read(path, NOTE)?;
        let numbers = numbers.ok_or_else(|| ModelError::file(path, "it does not say what is left of a tower"))?;
        let numbers = serde_json::from_str(&numbers).map_err(|e| ModelError::file(path, e))?;
        let mut cut = Self { numbers, ..Self::default() };
        for (name, flags) in flags {
            let wrong = || ModelError::file(path, format!("`{name}` does not say what is left of a layer"));
            if name == QUERY_TOKENS && flags.kind() == Kind::Uint8 && flags.dim() == 1 {
                cut.queries = Some(flags.nonzero().squeeze_dim(1));
                continue;
            }
            let ending = ENDINGS.into_iter().find(|ending| name.ends_with(ending)).ok_or_else(wrong)?;
            if flags.kind() != Kind::Uint8 || flags.dim() != 1 {
                return Err(wrong());
            }
            let (layer, kept) = (&name[..name.len() - ending.len()], flags.nonzero().squeeze_dim(1));
            if layer.ends_with(".weight") {
                cut.tables.insert(layer.to_owned(), kept);
                continue;
            }
            let layer = cut.layers.entry(layer.to_owned()).or_default();
            *(if ending == ENDINGS[0] { &mut layer.rows } else { &mut layer.columns }) = Some(kept);
        }
        Ok(cut)
    }
}

/// What is left of the towers of a model.
#[derive(Debug, Default)]
pub struct Cuts {
    towers: BTreeMap<Tower, TowerCut>,
}

impl Cuts {
    /// Of a tower this is left now.
    pub fn insert(&mut self, tower: Tower, cut: TowerCut) {
        self.towers.insert(tower, cut);
    }

    /// What is left of a tower; `None` where all of it is.
    pub fn tower(&self, tower: Tower) -> Option<&TowerCut> {
        self.towers.get(&tower)
    }

    /// Towers that have lost something.
    pub fn iter(&self) -> impl Iterator<Item = (Tower, &TowerCut)> {
        self.towers.iter().map(|(tower, cut)| (*tower, cut))
    }

    /// Learned queries that are left, i64 in ascending order; `None` where all are.
    pub fn queries(&self) -> Option<&Tensor> {
        self.tower(Tower::Connector)?.queries.as_ref()
    }

    /// Whether nothing was removed.
    pub fn is_empty(&self) -> bool {
        self.towers.is_empty()
    }

    /// The same for those who write a folder without what was removed; `None` where nothing was.
    pub fn smaller(&self) -> Option<Smaller> {
        let whole = |kept: &Tensor| -> Vec<usize> {
            let kept: Vec<i64> = Vec::try_from(kept).unwrap_or_default();
            kept.into_iter().filter_map(|at| usize::try_from(at).ok()).collect()
        };
        let mut smaller = Smaller::default();
        for (tower, TowerCut { numbers, layers, tables, queries }) in self.iter() {
            let left = LeftOfTower {
                heads: numbers.heads.map(|heads| heads.left),
                channels: numbers.channels.map(|channels| channels.left),
                stacks: numbers.stacks.iter().map(|stack| (stack.path.clone(), stack.blocks.clone())).collect(),
                queries: numbers.queries.map(|queries| queries.left),
            };
            smaller.columns.extend(queries.as_ref().map(|kept| (QUERY_TOKENS.to_owned(), whole(kept))));
            smaller.towers.insert(tower, left);
            for (layer, LayerCut { rows, columns }) in layers {
                let [weight, bias] = of_layer(layer);
                if let Some(rows) = rows.as_ref().map(whole) {
                    smaller.rows.extend([(weight.clone(), rows.clone()), (bias, rows)]);
                }
                smaller.columns.extend(columns.as_ref().map(|columns| (weight, whole(columns))));
            }
            smaller.columns.extend(tables.iter().map(|(table, columns)| (table.clone(), whole(columns))));
            smaller.tables.extend(tables.keys().cloned());
        }
        (!self.is_empty()).then_some(smaller)
    }

    /// What is left of a layer, by its module path; `None` where all of it is.
    pub fn layer(&self, layer: &str) -> Option<&LayerCut> {
        self.towers.values().find_map(|tower| tower.layers.get(layer))
    }
}

impl Clone for LayerCut {
    fn clone(&self) -> Self {
        self.shallow_clone()
    }
}

#[cfg(test)]
mod tests {
    use tch::Device;

    use super::*;

    fn cut(rows: Option<&[i64]>, columns: Option<&[i64]>) -> LayerCut {
        LayerCut { rows: rows.map(Tensor::from_slice), columns: columns.map(Tensor::from_slice) }
    }

    #[test]
    fn a_part_is_taken_out_and_put_back() {
        let whole = Tensor::arange(12, (Kind::Float, Device::Cpu)).view([3, 4]);
        let cut = cut(Some(&[0, 2]), Some(&[1, 3]));
        let part = cut.of(&whole);
        assert!(part.equal(&Tensor::from_slice(&[1.0f32, 3.0, 9.0, 11.0]).view([2, 2])));
        let back = cut.spread(&part, (3, 4));
        assert!(back.equal(&(whole * cut.keep((3, 4), Device::Cpu))));
        assert_eq!(cut.keep((3, 4), Device::Cpu).to_kind(Kind::Int64).sum(Kind::Int64).int64_value(&[]), 4);
        assert_eq!(LayerCut::default().size((3, 4)), (3, 4));
        let gone = LayerCut { rows: Some(Tensor::zeros([0], (Kind::Int64, Device::Cpu))), columns: None };
        assert_eq!(gone.keep((3, 4), Device::Cpu).any().int64_value(&[]), 0);
    }

    #[test]
    fn what_is_left_survives_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("structure.safetensors");
        let stacks = vec![StackCut { path: "encoder.block".to_owned(), blocks: vec![0, 2], of: 3 }];
        let numbers = TowerNumbers {
            heads: Some(Left { left: 2, of: 3 }),
            channels: None,
            stacks,
            queries: Some(Left { left: 2, of: 5 }),
        };
        let mut written = TowerCut { numbers, ..TowerCut::default() };
        written.layers.insert("a.q".to_owned(), cut(Some(&[0, 2]), None));
        written.layers.insert("a.o".to_owned(), cut(None, Some(&[1])));
        written.tables.insert("a.bias.weight".to_owned(), Tensor::from_slice(&[0i64, 2]));
        written.queries = Some(Tensor::from_slice(&[1i64, 4]));
        written.save(&path, |_| Some((3, 3))).unwrap();
        let read = TowerCut::load(&path).unwrap();
        assert_eq!((&read.numbers, read.layers.len()), (&written.numbers, 2));
        let flags = |tensor: &Tensor| Vec::<i64>::try_from(tensor).unwrap();
        assert_eq!(read.layers["a.q"].rows.as_ref().map(flags), Some(vec![0, 2]));
        assert_eq!(read.layers["a.o"].columns.as_ref().map(flags), Some(vec![1]));
        assert!(read.layers["a.o"].rows.is_none());
        assert_eq!(flags(&read.tables["a.bias.weight"]), [0, 2]);
        assert_eq!(read.queries.as_ref().map(flags), Some(vec![1, 4]));
        assert!(matches!(written.save(&path, |_| None), Err(ModelError::UnknownLayers(_))));
    }
}
