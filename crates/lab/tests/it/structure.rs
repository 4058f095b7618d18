//! Heads, channels and blocks that are removed: the folder of the smaller model computes what the masked model does.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use ressa_checkpoint::{
    Checkpoint, Claims, Entry, ExportRequest, Exported, File, FolderCertificate, Removable, export, export_smaller,
    misfits, read_config, verify,
};
use ressa_experiment::{
    Pattern, Tower,
    job::{Container, Forward, Job, ModelAt},
    structure::{BlockScore, GroupScore, TowerStructure},
};
use ressa_lab::{LabError, run};
use ressa_models::{Cuts, KeepMask, LoadOptions, MaskSet, Surgery, load_model};
use ressa_prune::structure::{StructureRequest, certify_structure, remove_groups};
use serde_json::Value;
use tch::{Device, Kind, Tensor};

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/tests/goldens")
}

fn folder(name: &str) -> PathBuf {
    goldens().join(name)
}

/// A target with whatever the configuration of a folder can say.
fn possible(folder: &Path, tower: Tower, target: TowerStructure) -> TowerStructure {
    let removable = Removable::of(&read_config(folder).unwrap(), tower);
    TowerStructure {
        heads: if removable.heads.is_ok() { target.heads } else { 0.0 },
        channels: if removable.channels.is_ok() { target.channels } else { 0.0 },
        blocks: if removable.blocks.is_ok() { target.blocks } else { 0.0 },
        queries: if removable.queries.is_ok() { target.queries } else { 0.0 },
    }
}

/// What is left of a folder's model of which parts of every tower were removed, and its masks.
fn removed(folder: &Path, target: TowerStructure, score: GroupScore) -> (Cuts, MaskSet) {
    let mut model = load_model(folder, &LoadOptions::on(Device::Cpu)).unwrap();
    let (mut cuts, mut masks) = (Cuts::default(), MaskSet::new());
    for tower in Tower::ALL {
        let target = possible(folder, tower, target);
        if target.is_none() {
            continue;
        }
        let block_score = Some(BlockScore::Random);
        let request = StructureRequest { tower, target, score: Some(score), block_score, seed: 3 };
        let found = remove_groups(&mut model, &request, None, &[], &mut |_| {}).unwrap();
        let certificate = certify_structure(&model, tower, &found);
        assert!(certificate.holds(), "{:?}", certificate.violations);
        masks.extend(found.masks);
        cuts.insert(tower, found.cut);
    }
    (cuts, masks)
}

/// The bytes of a tensor under its mask.
fn masked(masks: &MaskSet, file: &File, entry: &Entry) -> Option<Vec<u8>> {
    let keep = masks.get(entry.name.strip_suffix(".weight").unwrap_or(&entry.name))?;
    let keep: Vec<bool> = Vec::try_from(KeepMask::keep(keep).view([-1])).unwrap();
    let (bytes, width) = (file.bytes(entry), entry.bytes() / entry.elements());
    Some(
        bytes
            .chunks(width)
            .zip(keep)
            .flat_map(|(value, keep)| if keep { value.to_vec() } else { vec![0; width] })
            .collect(),
    )
}

/// The folder with zeros, and the smaller one.
fn write(source: &Path, root: &Path, cuts: &Cuts, masks: &MaskSet, most: Option<u64>) -> [(PathBuf, Exported); 2] {
    let patterns = BTreeMap::new();
    let output = [root.join("whole"), root.join("smaller")];
    let request = |output| ExportRequest {
        source,
        output,
        max_shard_size: most,
        container: Default::default(),
        patterns: &patterns,
        program: "a test",
        run: None,
    };
    let mut change = |file: &File, entry: &Entry| Ok::<_, LabError>(masked(masks, file, entry));
    let whole = export(&request(&output[0]), &mut change, None, &mut |_, _| ()).unwrap();
    let smaller = cuts.smaller().unwrap();
    let smaller = export_smaller(&request(&output[1]), &smaller, &mut change, None, &mut |_, _| ()).unwrap();
    let [one, other] = output;
    [(one, whole), (other, smaller)]
}

/// Logits of the inputs that a folder's golden has.
fn logits(golden: &Path, model: PathBuf, root: &Path) -> Tensor {
    let named: Vec<(String, Tensor)> = Tensor::read_safetensors(golden.join("golden.safetensors")).unwrap();
    let find = |name: &str| {
        let known = |wanted: String| named.iter().find(|(key, _)| *key == wanted).map(|(_, tensor)| tensor);
        known(name.to_owned()).or_else(|| known(format!("right.{name}")))
    };
    let names =
        ["pixel_values", "input_ids", "attention_mask", "labels", "qformer_input_ids", "qformer_attention_mask"];
    let mut inputs: Vec<(&str, &Tensor)> = names.into_iter().filter_map(|name| Some((name, find(name)?))).collect();
    let tiles =
        ["pixel_values", "pixel_attention_mask", "input_ids"].map(|name| (name, find(&format!("padded.{name}"))));
    let ones = tiles[2].1.map(Tensor::ones_like);
    if let Some(ones) = &ones {
        inputs = tiles.into_iter().filter_map(|(name, tensor)| Some((name, tensor?))).collect();
        inputs.push(("attention_mask", ones));
    }
    let (given, output) = (root.join("in.safetensors"), root.join("out.safetensors"));
    Tensor::write_safetensors(&inputs, &given).unwrap();
    let job = Forward { model: ModelAt { folder: model, compute: None }, inputs: given, output: output.clone() };
    run(&Job::Forward(job), Device::Cpu, &mut |_, _| ()).unwrap();
    let found: Vec<(String, Tensor)> = Tensor::read_safetensors(&output).unwrap();
    found.into_iter().find(|(name, _)| name == "logits").unwrap().1
}

/// Every family in which something can be removed: T5, LLaMA with and without shared keys and values, OPT, Qwen2 and Mistral, BLIP-2's encoder, CLIP, SigLIP,
/// SmolVLM's and InternVL's.
const FOLDERS: [&str; 9] = [
    "instructblip-flant5",
    "instructblip-vicuna",
    "blip2-flant5",
    "blip2-opt",
    "llava-default",
    "llava-siglip",
    "llava-tied",
    "smolvlm",
    "internvl",
];

#[test]
fn the_smaller_folder_computes_what_the_masked_model_does() {
    let targets = [
        TowerStructure { heads: 0.5, channels: 0.3, blocks: 0.5, ..TowerStructure::default() },
        TowerStructure { channels: 0.25, ..TowerStructure::default() },
        TowerStructure { heads: 1.0, channels: 8.0, blocks: 2.0, ..TowerStructure::default() },
    ];
    for name in FOLDERS {
        for (at, target) in targets.into_iter().enumerate() {
            let (source, root) = (folder(name), tempfile::tempdir().unwrap());
            let (cuts, masks) = removed(&source, target, GroupScore::Random);
            let most = (at == 1).then_some(40_000);
            let [(whole, zeros), (smaller, left)] = write(&source, root.path(), &cuts, &masks, most);
            let (masked, small) = (logits(&source, whole, root.path()), logits(&source, smaller.clone(), root.path()));
            let dense = logits(&source, source.clone(), root.path());
            let apart =
                |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) / b.abs().max().double_value(&[]);
            assert!(apart(&small, &masked) < 2e-5, "{name} {target}: {}", apart(&small, &masked));
            assert!(apart(&small, &dense) > 1e-3, "{name} {target}: nothing was removed");

            let bytes = |exported: &Exported| -> u64 {
                exported.weights.iter().map(|path| path.metadata().unwrap().len()).sum()
            };
            assert!(bytes(&left) < bytes(&zeros), "{name} {target}");
            assert!(left.certificate.towers.values().all(|tower| tower.zeros == 0), "{name} {target}");
            let checkpoint = Checkpoint::open(&smaller).unwrap();
            assert_eq!(misfits(&checkpoint), Vec::<String>::new(), "{name} {target}");
            let own = FolderCertificate::read(&smaller).unwrap();
            let verified = verify(&checkpoint, own.as_ref(), &Claims::default());
            assert!(verified.holds(), "{name} {target}: {:?}", verified.violations);
        }
    }
}

static NONE: BTreeMap<String, Pattern> = BTreeMap::new();

/// The folder of a smaller model is written as that of a whole one: one file needs no list of pieces, and a card that is carried along says how these
/// weights are stored.
#[test]
fn a_smaller_folder_is_written_as_any_other() {
    let (source, root) = (folder("instructblip-flant5"), tempfile::tempdir().unwrap());
    let target = TowerStructure { channels: 0.25, ..TowerStructure::default() };
    let (cuts, _) = removed(&source, target, GroupScore::Random);
    let (pieces, joined, packed) = (root.path().join("pieces"), root.path().join("joined"), root.path().join("packed"));
    let request = |source, output, most, container| ExportRequest {
        source,
        output,
        max_shard_size: Some(most),
        container,
        patterns: &NONE,
        program: "a test",
        run: None,
    };
    let mut same = |_: &File, _: &Entry| Ok::<_, LabError>(None);
    export(&request(&source, &pieces, 40_000, Container::Dense), &mut same, None, &mut |_, _| ()).unwrap();
    assert!(pieces.join("model.safetensors.index.json").exists());
    let smaller = cuts.smaller().unwrap();
    // Zeros enough for a container.
    let mut zeros =
        |_: &File, entry: &Entry| Ok::<_, LabError>(entry.name.ends_with("wo.weight").then(|| vec![0; entry.bytes()]));
    fs::write(pieces.join("README.md"), "# Mine\n").unwrap();
    let card = |folder: &Path| fs::read_to_string(folder.join("README.md")).unwrap();
    let bitmask = request(&pieces, &packed, 1 << 40, Container::Bitmask);
    let done = export_smaller(&bitmask, &smaller, &mut zeros, None, &mut |_, _| ()).unwrap();
    assert_eq!(done.weights, [packed.join("model.safetensors")]);
    assert!(!packed.join("model.safetensors.index.json").exists());
    assert!(card(&packed).contains("## Container"), "{}", card(&packed));
    let again = removed(&packed, target, GroupScore::Random).0.smaller().unwrap();
    let dense = request(&packed, &joined, 1 << 40, Container::Dense);
    export_smaller(&dense, &again, &mut same, None, &mut |_, _| ()).unwrap();
    assert_eq!(card(&joined), "# Mine\n");
}

#[test]
fn a_second_removal_takes_more_and_leaves_nothing_that_the_first_took() {
    let source = folder("instructblip-flant5");
    let mut model = load_model(&source, &LoadOptions::on(Device::Cpu)).unwrap();
    let request = |score, target| StructureRequest {
        tower: Tower::Language,
        target,
        score: Some(score),
        block_score: Some(BlockScore::Magnitude),
        seed: 5,
    };
    let first = TowerStructure { heads: 4.0, channels: 0.25, blocks: 0.4, ..TowerStructure::default() };
    let found = remove_groups(&mut model, &request(GroupScore::Random, first), None, &[], &mut |_| {}).unwrap();
    found.masks.apply(&mut model).unwrap();
    // Heads are not asked for again.
    let second = TowerStructure { channels: 0.5, blocks: 0.5, ..TowerStructure::default() };
    let more = request(GroupScore::Magnitude, second);
    let further = remove_groups(&mut model, &more, Some(&found.cut), &[], &mut |_| {}).unwrap();
    assert!(certify_structure(&model, Tower::Language, &further).holds());
    let numbers = &further.cut.numbers;
    assert_eq!(numbers.heads.map(|heads| (heads.left, heads.of)), Some((4, 5)));
    assert_eq!(numbers.channels.map(|channels| (channels.left, channels.of)), Some((17, 34)));
    for (layer, mask) in found.masks.iter() {
        let back = further.masks.get(layer).unwrap().keep().logical_and(&mask.remove());
        assert_eq!(back.any().int64_value(&[]), 0, "`{layer}`");
    }
    // One mask is not that of what is left.
    let mut wrong = further;
    let (layer, keep) = wrong.masks.iter().next().map(|(layer, mask)| (layer.to_owned(), mask.keep())).unwrap();
    wrong.masks.insert(layer.clone(), Tensor::zeros_like(&keep).to_kind(Kind::Bool));
    let violations = certify_structure(&model, Tower::Language, &wrong).violations;
    assert!(violations.iter().any(|violation| violation.contains(&layer)), "{violations:?}");
}

/// The least of the norms go, in every layer as many.
#[test]
fn magnitude_is_the_norm_of_a_group() {
    let source = folder("llava-default");
    let mut model = load_model(&source, &LoadOptions::on(Device::Cpu)).unwrap();
    for (id, linear) in model.linears_mut() {
        if id.name == "language_model.model.layers.1.mlp.down_proj" {
            // Column j gets the norm j, and the gates of its channel none.
            let width = linear.shape().1;
            let column = Tensor::arange(width, (Kind::Float, Device::Cpu)) / (linear.shape().0 as f64).sqrt();
            linear.set_weight(column.unsqueeze(0).expand_as(linear.weight()).contiguous()).unwrap();
        } else if id.name.starts_with("language_model.model.layers.1.mlp.") {
            let zeros = linear.weight().zeros_like();
            linear.set_weight(zeros).unwrap();
        }
    }
    let target = TowerStructure { channels: 35.0, ..TowerStructure::default() };
    let score = Some(GroupScore::Magnitude);
    let request = StructureRequest { tower: Tower::Language, target, score, block_score: None, seed: 0 };
    let found = remove_groups(&mut model, &request, None, &[], &mut |_| {}).unwrap();
    let left = found.cut.layers["language_model.model.layers.1.mlp.down_proj"].columns.as_ref().unwrap();
    assert_eq!(Vec::<i64>::try_from(left).unwrap(), (3..38).collect::<Vec<_>>());
    for layer in ["gate_proj", "up_proj"] {
        let rows = found.cut.layers[&format!("language_model.model.layers.1.mlp.{layer}")].rows.as_ref().unwrap();
        assert!(rows.equal(left));
    }
}

#[test]
fn what_a_configuration_cannot_say_is_refused_by_name() {
    let refused = |name: &str, tower: Tower, target: TowerStructure| {
        let removable = Removable::of(&read_config(&folder(name)).unwrap(), tower);
        removable
            .refusals(tower, &target)
            .into_iter()
            .map(|(setting, what)| format!("{setting}: {what}"))
            .collect::<Vec<_>>()
    };
    let heads = TowerStructure { heads: 0.5, ..TowerStructure::default() };
    for (name, tower, word) in [
        ("blip2-opt", Tower::Language, "OPT"),
        ("blip2-opt", Tower::Connector, "Q-Former"),
        ("blip2-opt", Tower::Vision, "BLIP-2"),
        ("llava-default", Tower::Vision, "CLIP"),
        ("llava-siglip", Tower::Vision, "SigLIP"),
        ("llava-siglip", Tower::Language, "qwen2"),
        ("llava-dinov2", Tower::Vision, "DINOv2"),
        ("qwen2-vl", Tower::Language, "qwen2_vl"),
    ] {
        let found = refused(name, tower, heads);
        assert!(found.len() == 1 && found[0].contains(word), "{name} {tower}: {found:?}");
    }
    let more = TowerStructure { blocks: 9.0, ..TowerStructure::default() };
    assert_eq!(
        refused("smolvlm", Tower::Language, more),
        ["structure.language.blocks: 9 blocks are to remain, and there are 2; lower it"]
    );
}

/// The configuration of the smaller folder, as other programs read it.
#[test]
fn the_configuration_says_the_new_sizes() {
    let root = tempfile::tempdir().unwrap();
    let source = folder("instructblip-vicuna");
    let target = TowerStructure { heads: 0.5, channels: 0.5, blocks: 0.5, ..TowerStructure::default() };
    let (cuts, masks) = removed(&source, target, GroupScore::Magnitude);
    let [_, (smaller, _)] = write(&source, root.path(), &cuts, &masks, None);
    let config: Value = serde_json::from_slice(&fs::read(smaller.join("config.json")).unwrap()).unwrap();
    let text = &config["text_config"];
    let sizes = ["num_attention_heads", "num_key_value_heads", "head_dim", "intermediate_size", "num_hidden_layers"];
    assert_eq!(sizes.map(|size| text[size].as_u64().unwrap()), [2, 1, 8, 23, 2]);
    let vision = &config["vision_config"];
    assert_eq!(
        ["num_attention_heads", "intermediate_size", "num_hidden_layers"].map(|size| vision[size].as_u64().unwrap()),
        [3, 19, 1]
    );
}
