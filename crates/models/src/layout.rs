//! Image features in their places among the words of a prompt.

pub use ressa_experiment::prompt::{Layout, Mosaic};
use tch::Tensor;

/// Features `[rows, features, width]` in their places among the words `[1, tokens, width]` of a layout: `[rows, tokens, width]`.
pub(crate) fn merge(layout: &Layout, words: &Tensor, features: &Tensor) -> Tensor {
    let (rows, given) = (features.size()[0], features.size()[1]);
    assert_eq!(given, layout.features() as i64, "a layout has a place for each feature of its image");
    let mut taken = 0;
    let part = |(of_image, at, count): (bool, usize, usize)| {
        let count = count as i64;
        if !of_image {
            return words.narrow(1, at as i64, count).expand([rows, -1, -1], false);
        }
        taken += count;
        features.narrow(1, taken - count, count)
    };
    Tensor::cat(&layout.runs().into_iter().map(part).collect::<Vec<_>>(), 1)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn features_take_the_places_of_image_tokens_in_order() {
        let (layout, text) = Layout::split(&[1, 5, 9, 9, 6, 9, 7, 8], 9).expect("there is an image");
        assert_eq!((layout.tokens(), layout.features(), text), (6, 3, vec![7, 8]));
        let words = Tensor::arange(6, (Kind::Float, Device::Cpu)).view([1, 6, 1]);
        let features = Tensor::from_slice(&[10f32, 11.0, 12.0, 20.0, 21.0, 22.0]).view([2, 3, 1]);
        let merged: Vec<f64> =
            Vec::try_from(merge(&layout, &words, &features).view([-1]).to_kind(Kind::Double)).expect("numbers");
        assert_eq!(merged, [0.0, 1.0, 10.0, 11.0, 4.0, 12.0, 0.0, 1.0, 20.0, 21.0, 4.0, 22.0]);
        assert_eq!(Layout::split(&[1, 2], 9), None);
    }
}
