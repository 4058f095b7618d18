//! Messages of a worker among whatever else stands on its standard output.
//!
//! Libraries write there too: in any encoding, of any length, and sometimes without the end of a line before a message. Nothing of that
//! may end a stage.

use std::io::{BufRead, BufReader, Read};

use serde::de::DeserializeOwned;

/// Maximum length of a line in bytes; a longer one is no message and is passed on in pieces.
const LONGEST: u64 = 1 << 30;

/// Reads `output` to its end. Lines that are a `T` go to `message`, which ends the reading with `false`; all other bytes go to `foreign`.
/// `begin` is how every message begins, such as `{"event":`, and finds one behind something that did not end its line.
pub fn read_messages<T: DeserializeOwned>(
    output: impl Read,
    begin: &str,
    message: &mut dyn FnMut(T) -> bool,
    foreign: &mut dyn FnMut(&[u8]),
) {
    let mut reader = BufReader::new(output);
    let mut line = Vec::new();
    loop {
        line.clear();
        match reader.by_ref().take(LONGEST).read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            // A pipe that breaks is a worker that ends.
            Err(_) => return,
        }
        let (before, found) = split(&line, begin.as_bytes());
        if !before.is_empty() {
            foreign(before);
            if found.is_some() {
                foreign(b"\n");
            }
        }
        if let Some(found) = found
            && !message(found)
        {
            return;
        }
    }
}

/// What stands before the message of a line, and the message.
fn split<'l, T: DeserializeOwned>(line: &'l [u8], begin: &[u8]) -> (&'l [u8], Option<T>) {
    let starts = (0..line.len()).filter(|&at| line[at..].starts_with(begin));
    for at in starts {
        if let Ok(found) = serde_json::from_slice(&line[at..]) {
            return (&line[..at], Some(found));
        }
    }
    (line, None)
}

#[cfg(test)]
mod tests {
    use ressa_experiment::protocol::Event;

    use super::read_messages;

    fn read(output: &[u8]) -> (Vec<u32>, String) {
        let (mut threads, mut rest) = (Vec::new(), Vec::new());
        read_messages(
            output,
            "{\"event\":",
            &mut |event| {
                if let Event::Ready { threads: n, .. } = event {
                    threads.push(n);
                }
                true
            },
            &mut |bytes| rest.extend_from_slice(bytes),
        );
        (threads, String::from_utf8_lossy(&rest).into_owned())
    }

    #[test]
    fn messages_are_found_among_foreign_bytes() {
        let ready = |n: u32| format!("{{\"event\":\"ready\",\"device\":\"cpu\",\"threads\":{n}}}");
        let mut output = b"caf\xe9: a warning\n\0\n[1, 2]\n{\"event\":\"unknown\"}\n".to_vec();
        output.extend(format!("{}\n", ready(1)).bytes());
        output.extend(format!("no end of line {}\r\n", ready(2)).bytes());
        output.extend(b"{\"event\": {\"event\":\xff ");
        output.extend(format!("{}\n", ready(3)).bytes());
        output.extend(format!("{}{}\n", ready(4), " trailing").bytes());
        output.extend(ready(5).bytes());
        let (threads, rest) = read(&output);
        assert_eq!(threads, [1, 2, 3, 5]);
        assert!(rest.contains("a warning\n") && rest.contains("no end of line \n"), "{rest}");
        assert!(rest.contains("trailing") && !rest.contains("\"threads\":5"), "{rest}");
        assert!(read(b"").0.is_empty());
    }
}
