//! Attention that is distilled: what cannot be compared is refused, at the setting that says so.

use crate::load;

/// What is wrong with a restoration by SparseLoRA with these settings, behind these steps.
fn refused(steps: &str, restore: &str) -> String {
    let yaml = format!(
        "model.preset: shapes-flant5\nreplicate: {{ seed: 0..1 }}\nprune: {{ metric: magnitude, vision.sparsity: 0.5 }}\n{steps}restore:\n  method: sparse-lora\n{restore}"
    );
    match load(&yaml, &["restore.steps=10,20"]) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn attention_that_cannot_be_compared_is_refused() {
    let looks = |towers: &str, more: &str| {
        format!("  distill: {{ weight: 0.5, attention: {{ weight: 1, towers: [{towers}] }}{more} }}\n")
    };
    assert_eq!(refused("", &looks("vision, connector, language", "")), "");
    let still = looks("vision", "") + "  vision.tune: false\n";
    assert_eq!(refused("", &still), "nothing trains that the attention of tower `vision` depends on");
    // What trains below changes what a tower looks at.
    assert_eq!(refused("", &(looks("language", "") + "  language.tune: false\n")), "");
    assert!(refused("", &looks("vision", ", teacher: other")).starts_with("a teacher of another folder"));
    assert_eq!(refused("", &looks("language", ", teacher: other")), "");
    let behind = |target: &str| {
        let steps = format!("steps: [structure: {{ name: small, {target} }}, restore]\n");
        refused(&steps, &looks("language", ""))
    };
    assert!(behind("language.heads: 0.25").starts_with("`small` has removed heads of tower `language`"));
    assert!(behind("language.blocks: 0.25").starts_with("`small` has removed blocks of tower `language`"));
    assert_eq!([behind("language.channels: 0.25"), behind("vision.blocks: 0.25")], [""; 2]);
}
