//! Positions on three axes, frames, rows and columns: a token of an image has the place that it has in the image, words go on behind.
//!
//! Reference: `Qwen2VLModel.get_rope_index` in transformers, `modeling_qwen2_vl.py`.

use tch::{Device, Tensor};

use crate::Layout;

/// Positions of tokens on each axis.
pub(crate) type Axes = [Vec<i64>; 3];

/// Positions of `ids`, where `image` stands for a feature of an image: the first grid begins at the first such token, each next one at the
/// first behind the one before. `None` where a grid finds no token or more features than there are tokens.
pub(crate) fn axes(ids: &[u32], image: u32, grids: &[[u32; 3]]) -> Option<Axes> {
    let mut axes: Axes = Default::default();
    let (mut at, mut next) = (0, 0);
    let words = |axes: &mut Axes, count: usize, next: &mut i64| {
        axes.iter_mut().for_each(|axis| axis.extend(*next..*next + count as i64));
        *next += count as i64;
    };
    for &[frames, rows, columns] in grids {
        let before = ids[at..].iter().position(|&id| id == image)?;
        words(&mut axes, before, &mut next);
        let features = [frames, rows, columns].iter().try_fold(1usize, |all, &size| all.checked_mul(size as usize))?;
        at += before;
        if features > ids.len() - at {
            return None;
        }
        for frame in 0..i64::from(frames) {
            for row in 0..i64::from(rows) {
                for column in 0..i64::from(columns) {
                    axes.iter_mut().zip([frame, row, column]).for_each(|(axis, place)| axis.push(next + place));
                }
            }
        }
        at += features;
        next += i64::from(frames.max(rows).max(columns));
    }
    words(&mut axes, ids.len() - at, &mut next);
    Some(axes)
}

/// Positions i64 `[3, tokens]` of a layout and of what follows it, `tokens` in all.
pub(crate) fn of_layout(layout: &Layout, tokens: usize) -> Tensor {
    let mut ids = layout.ids.clone();
    // What follows is no image's, whatever it says.
    ids.resize(tokens.max(ids.len()), layout.image_token.wrapping_add(1));
    tensor(&known(axes(&ids, layout.image_token, &layout.grids)))
}

/// What is to be added to a row's number of tokens for the position of its next one.
pub(crate) fn offset(layout: &Layout) -> i64 {
    if layout.grids.is_empty() {
        return 0;
    }
    let axes = known(axes(&layout.ids, layout.image_token, &layout.grids));
    let last = axes.iter().filter_map(|axis| axis.iter().max()).max();
    last.map_or(0, |last| last + 1 - layout.ids.len() as i64)
}

/// A layout's grids were made with its tokens.
fn known(axes: Option<Axes>) -> Axes {
    axes.expect("a layout has a token for each feature of its grids")
}

/// i64 `[3, tokens]`.
fn tensor(axes: &Axes) -> Tensor {
    let rows: Vec<Tensor> = axes.iter().map(|axis| Tensor::from_slice(axis)).collect();
    Tensor::stack(&rows, 0).to_device(Device::Cpu)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_rows_and_columns_and_words_go_on_behind_the_longest_side() {
        let found = axes(&[5, 9, 9, 9, 9, 9, 9, 6, 9, 9, 7], 9, &[[1, 2, 3], [1, 2, 1]]).unwrap();
        assert_eq!(found[0], [0, 1, 1, 1, 1, 1, 1, 4, 5, 5, 7]);
        assert_eq!(found[1], [0, 1, 1, 1, 2, 2, 2, 4, 5, 6, 7]);
        assert_eq!(found[2], [0, 1, 2, 3, 1, 2, 3, 4, 5, 5, 7]);
        let layout = Layout { ids: vec![5, 9, 9, 9, 9], image_token: 9, grids: vec![[1, 2, 2]], mosaic: None };
        assert_eq!(offset(&layout), -2);
        assert_eq!(Vec::<i64>::try_from(of_layout(&layout, 7).get(1)).unwrap(), [0, 1, 1, 2, 2, 3, 4]);
        assert_eq!(axes(&[5, 9, 9], 9, &[[1, 2, 2]]), None);
        assert_eq!(axes(&[5, 9], 9, &[[1, 1, 1], [1, 1, 1]]), None);
        assert_eq!(axes(&[5, 9], 9, &[[1, u32::MAX, u32::MAX]]), None);
    }
}
