//! Cards: what a GPU holds and what it reaches, from `experiments/devices.yaml`.

use serde::{Deserialize, Serialize};

use crate::PredictError;

/// A GPU by what large operations reach on it. The file says where the numbers come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Card {
    /// As the vendor writes it.
    pub name: String,
    /// Memory in 10^9 bytes.
    pub memory_gb: f64,
    /// Matrix products of bf16 or f16, 10^12 operations a second.
    pub half_tflops: f64,
    /// Matrix products of f32.
    pub single_tflops: f64,
    /// Matrix products of f32 with TF32.
    pub tf32_tflops: f64,
    /// Matrix products of f64.
    pub double_tflops: f64,
    /// Bandwidth of the card's own memory, 10^9 bytes a second.
    pub gbytes_per_second: f64,
    /// Microseconds that the host takes to issue one operation.
    pub launch_us: f64,
    /// Shortest time of a kernel in microseconds.
    pub kernel_us: f64,
    /// Copies between host and card, 10^9 bytes a second.
    pub host_gbytes_per_second: f64,
}

impl Card {
    /// Memory in bytes.
    pub fn memory(&self) -> u64 {
        (self.memory_gb * 1e9) as u64
    }
}

/// The cards of a file, in its order, by the names that the command line knows them by.
#[derive(Clone, Debug, PartialEq)]
pub struct Cards(Vec<(String, Card)>);

impl Cards {
    /// Reads the cards in a file's text.
    ///
    /// # Errors
    /// Text that is not a mapping of cards; a number that is not above 0.
    pub fn parse(text: &str) -> Result<Self, PredictError> {
        let broken = |reason: String| PredictError::Cards { reason };
        let listed: serde_yaml::Mapping = serde_yaml::from_str(text).map_err(|e| broken(e.to_string()))?;
        let mut cards = Vec::new();
        for (id, card) in listed {
            let id = id.as_str().ok_or_else(|| broken("the name of a card is not text".to_owned()))?.to_owned();
            let card: Card = serde_yaml::from_value(card).map_err(|e| broken(format!("card `{id}`: {e}")))?;
            let Card { memory_gb, half_tflops, single_tflops, tf32_tflops, double_tflops, .. } = card;
            let Card { gbytes_per_second, launch_us, kernel_us, host_gbytes_per_second, .. } = card;
            let rates = [half_tflops, single_tflops, tf32_tflops, double_tflops, gbytes_per_second];
            let rest = [memory_gb, launch_us, kernel_us, host_gbytes_per_second];
            if let Some(odd) = rates.iter().chain(&rest).find(|number| !(number.is_finite() && **number > 0.0)) {
                return Err(broken(format!("card `{id}`: {odd} is not a finite number above 0")));
            }
            cards.push((id, card));
        }
        Ok(Self(cards))
    }

    /// Names and cards.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Card)> {
        self.0.iter().map(|(id, card)| (id.as_str(), card))
    }

    /// The card of a name.
    ///
    /// # Errors
    /// No card has the name; the error lists those there are.
    pub fn get(&self, id: &str) -> Result<&Card, PredictError> {
        let found = self.0.iter().find(|(known, _)| known == id).map(|(_, card)| card);
        found.ok_or_else(|| PredictError::UnknownCard {
            name: id.to_owned(),
            known: self.0.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>().join(", "),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "small: { name: Small, memory-gb: 8, half-tflops: 40, single-tflops: 10, tf32-tflops: 20, double-tflops: 1, \
        gbytes-per-second: 400, launch-us: 5, kernel-us: 2, host-gbytes-per-second: 6 }";

    #[test]
    fn the_cards_of_the_repository_are_read_in_order() {
        let cards = Cards::parse(include_str!("../../../experiments/devices.yaml")).expect("it is sound");
        assert_eq!(cards.get("h100").map(Card::memory), Ok(80_000_000_000));
        let unknown = cards.get("h1000").expect_err("no such card").to_string();
        assert!(unknown.contains("h100, h200, a100-80, rtx-4090"), "{unknown}");
    }

    #[test]
    fn broken_files_are_refused() {
        assert!(Cards::parse(ONE).is_ok());
        let refuse = |text: &str| Cards::parse(text).expect_err("refused").to_string();
        assert!(refuse(&ONE.replace("memory-gb: 8", "memory-gb: 0")).contains("card `small`: 0 is not"));
        assert!(refuse(&ONE.replace("launch-us: 5", "launch-us: .nan")).contains("NaN is not"));
        assert!(refuse(&ONE.replace("launch-us: 5, ", "")).contains("missing field `launch-us`"));
        assert!(refuse(&ONE.replace("launch-us", "lunch-us")).contains("unknown field `lunch-us`"));
        assert!(refuse("- h100").contains("devices.yaml"));
    }
}
