//! Reads arbitrary DNS messages: nothing panics, names keep to their bounds, and a cut takes answers from the end only.

#![no_main]

use libfuzzer_sys::fuzz_target;
use weir_packet::dns::{Answer, Data, Message, Name};

/// Most bytes of a message that the kernel hands over.
const MOST_BYTES: usize = 1280;

fuzz_target!(|bytes: &[u8]| {
    let bytes = &bytes[..bytes.len().min(MOST_BYTES)];
    let Some(message) = Message::new(bytes) else { return };
    let answers: Vec<Answer> = message.answers().collect();
    if let Some(question) = message.question() {
        check(&question.name);
    }
    for answer in &answers {
        check(&answer.name);
        if let Data::Alias(name) = &answer.data {
            check(name);
        }
    }
    let half = Message::new(&bytes[..bytes.len() / 2]);
    let before: Vec<Answer> = half.into_iter().flat_map(|message| message.answers()).collect();
    assert!(answers.starts_with(&before));
});

fn check(name: &Name) {
    let text = name.to_string();
    assert!(!text.is_empty() && text.is_ascii() && !text.contains(|letter: char| letter.is_ascii_uppercase()));
    assert!(name.labels().map(|label| label.len() + 1).sum::<usize>() < 255);
}
