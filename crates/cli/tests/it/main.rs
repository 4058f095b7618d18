//! The program as users meet it: real processes, the fake worker, exit codes and texts.

mod cluster;
mod errors;
mod fetching;
mod folders;
mod forcing;
mod garbage;
mod house;
mod killing;
mod looking;
mod output;
mod pilots;
mod predicting;
mod preflight;
mod selecting;
mod showing;
mod sweeping;
mod watching;

#[path = "../../../hub/tests/it/server.rs"]
mod server;

use house::House;

#[test]
fn help_is_complete_and_cheap() {
    let house = House::new();
    let help = house.ressa(&["--help"]);
    assert_eq!(help.code, 0);
    insta::assert_snapshot!(help.stdout, @"
    Experiments on sparse vision-language models: one YAML file in, tables and figures out

    Usage: ressa [OPTIONS] <COMMAND>

    Commands:
      plan           Show what a sweep would do: runs, distinct stages, what is cached, how long the rest takes here or on a card
      sweep          Make what is missing, then render the report; run again to resume
      status         Show how far experiments are, and what failed
      show           Show a run: every setting with its file and line, stages, scores, certificate, predictions
      diff           Compare two runs, results folders or reports; exit code 0 where nothing differs, 108 where something does
      explain        Say why a run or stage is cached or not
      report         Render tables and figures from what is in the store
      fetch          Bring a checkpoint from the hub into its cache, and print its folder
      data           Draw a contact sheet of the embedded world
      pretrain       Train the shipped dense models again and put them where every store finds them
      verify         Prove stored results or a model folder: digests, and certificates recounted on the weights
      export         Write a run, or a folder, as a model folder that other programs open
      inspect        Show what a model folder holds: towers, parameters, types, sparsity
      results        Write part of the results into one archive, or take one in
      retry          Forget recorded failures, so that the sweep that runs, or else the next one, tries those stages again
      logs           Show what a stage or run logged, running or not; without a name, list what failed
      work           Work for the sweep that runs on a results folder, on this machine: started here or by a cluster's engine
      gc             List stored stages that no experiment file and no recorded sweep asks for, and what is quarantined or came too late; with --delete, move them to the trash
      schema         Print the JSON Schema of experiment files
      generate       Answer prompts about images with a model folder
      prune          Prune a model folder block by block, in bounded memory; run again to resume
      score          Score stored predictions again, also with METEOR's and SPICE's own programs
      lab            Single steps for comparison with other implementations
      bench-kernels  Time dense and sparse products for the shapes of a model: 2:4 kernels on a GPU, compressed rows on a CPU
      doctor         Look for what keeps a sweep from running on this machine
      completions    Print completions for a shell
      man            Print the manual page, or write one for each command

    Options:
          --results <DIR>      Results folder [default: `results` beside `experiments`]
          --experiments <DIR>  Experiments folder [default: looked for upwards from here]
          --worker <FILE>      The worker program [default: `ressa-worker` beside this one]
          --json               Answer with one JSON value on standard output; why something cannot be done is one on standard error
      -q, --quiet              Say less
      -v, --verbose            Say more
      -h, --help               Print help
      -V, --version            Print version

    Exit codes:
      0 done               1 no worker, no network, or a defect              2 bad command line
      4 nothing selected   65 unusable folder, image or file                 66 model or benchmark missing
      75 other sweep runs  78 bad experiment        100 some failed          102 dense gate not reached
      104 not verified     106 report incomplete    108 diff: they differ    110 cannot write
      130, 143 interrupted, run again to resume
    ");
}

#[test]
fn a_plan_counts_runs_and_shared_stages() {
    let house = House::new();
    let plan = house.ressa(&["plan", "small"]);
    assert_eq!(plan.code, 0, "{}", plan.stderr);
    let text: Vec<&str> = plan.stdout.lines().filter(|line| !line.starts_with("about ")).collect();
    insta::assert_snapshot!(text.join("\n"), @"
    small          8 cells

    7 distinct runs, 0 complete
    29 distinct stages where 43 would run without sharing (1.5 to 1)

      stage     distinct  cached  to do   estimated
      dense            1       0      1  5 min 30 s
      prune            6       0      6        12 s
      adapt            4       0      4  1 min 20 s
      merge            4       0      4       1.2 s
      evaluate        14       0     14        42 s
    ");
}

#[test]
fn an_added_seed_is_exactly_what_a_plan_then_has_to_do() {
    let house = House::new();
    assert_eq!(house.ressa(&["sweep", "small", "--no-report"]).code, 0);
    let to_do = |arguments: &[&str]| {
        let plan = house.ressa(&[&["plan", "small", "--json"], arguments].concat());
        let plan: serde_json::Value = serde_json::from_str(&plan.stdout).unwrap();
        plan["stages"]["to-do"].as_u64().unwrap()
    };
    assert_eq!(to_do(&[]), 0);
    // Wanda alone knows the seed without restoration: two towers, then two tasks; one training, one merge and two tasks for each of two metrics.
    assert_eq!(to_do(&["replicate.seed=0..2"]), 2 + 2 + 2 * 4);
}
