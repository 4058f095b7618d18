//! Claims as JSON: verdicts, the numbers that decided, and what the comparisons could have seen.

use serde_json::{Value, json};

use super::Claim;
use crate::evidence::{Basis, Evidence, Seeds};

/// `claims.json`: one object per claim, numbers unrounded.
pub fn json(claims: &[Claim]) -> String {
    let claims: Vec<Value> = claims.iter().map(claim).collect();
    let mut text = serde_json::to_string_pretty(&claims).unwrap_or_default();
    text.push('\n');
    text
}

fn claim(claim: &Claim) -> Value {
    let evidence: Vec<Value> = claim.evidence.iter().map(evidence).collect();
    json!({
        "id": claim.id,
        "text": claim.text,
        "verdict": claim.verdict,
        "provisional": claim.provisional.map(|(there, planned)| json!({ "seeds": there, "planned": planned })),
        "reason": claim.reason,
        "detectable-80": claim.power.map(|power| power.detectable),
        "needed": claim.power.and_then(|power| power.needed),
        "evidence": evidence,
    })
}

fn evidence(evidence: &Evidence) -> Value {
    let difference = evidence.difference.as_ref().map(|d| {
        let seeds = match d.seeds {
            Seeds::Paired(n) => json!(n),
            Seeds::Apart(a, b) => json!([a, b]),
        };
        json!({
            "a": evidence.a,
            "b": evidence.b,
            "mean": d.mean,
            "half-width-95": d.half_width(),
            "seeds": seeds,
            "items": d.items,
            "paired-by-item": d.basis == Basis::Items,
            "detectable-80": d.detectable(),
        })
    });
    json!({ "at": evidence.place, "planned-seeds": evidence.expected, "difference": difference })
}
