//! `ressa generate`: answers about images.

use ressa_experiment::job::{Generate, Generated, Job, PromptRequest};
use serde_json::Value;

use crate::{
    arguments::{Global, model::GenerateOptions},
    commands::model_at,
    exit::{Exit, Failure, Outcome},
    job,
    text::{say, say_json},
};

/// Has the worker answer and prints the texts, or tokens and texts as JSON: an object for one request, a list for a file of them.
pub fn run(global: &Global, options: &GenerateOptions) -> Outcome {
    options.search.check().map_err(|message| Failure::new(Exit::Usage, message))?;
    let (requests, many) = match (&options.requests, &options.image, &options.prompt) {
        (Some(file), ..) => (super::read_requests::<PromptRequest>(file)?, true),
        (None, Some(image), Some(prompt)) => {
            (vec![PromptRequest { image: image.clone(), prompt: prompt.clone() }], false)
        }
        _ => return Err(Failure::new(Exit::Usage, "--image and --prompt, or --requests are needed")),
    };
    let job = Job::Generate(Generate { model: model_at(&options.model)?, requests, search: options.search.options() });
    let answer = job::run(global, &options.machine, &job)?;
    if global.json {
        say_json(if many { &answer } else { answer.get(0).unwrap_or(&Value::Null) });
        return Ok(Exit::Done);
    }
    let answers: Vec<Generated> =
        serde_json::from_value(answer).map_err(|e| Failure::new(Exit::Other, format!("the worker's answer: {e}")))?;
    for answer in answers {
        say(answer.text);
    }
    Ok(Exit::Done)
}
