use weir_flow::{Wall, format::json_object};

use super::*;

fn json(call: &Call) -> String {
    let tick = weir_flow::Tick { monotonic: Monotonic(0), wall: Wall(1_700_000_000_000_000_000) };
    let mut line = String::new();
    json_object(FIELDS.iter().map(|field| (field.name, field.value(call, &tick))), &mut line);
    line
}

#[test]
fn names_of_fields_and_endings_are_unique() {
    for (index, field) in FIELDS.iter().enumerate() {
        assert!(FIELDS[..index].iter().all(|other| other.name != field.name), "{}", field.name);
        assert!(field.doc.ends_with('.'), "{}", field.name);
    }
    assert_eq!(Ending::Malformed.name(), "malformed");
    assert_eq!(Ending::NoRequest.name(), "no-request");
}

#[test]
fn a_call_becomes_json_by_way_of_the_table() {
    let http = HttpCall {
        method: "GET".into(),
        target: "http://user@[::1]:8080/a?b=c".into(),
        host: Some("[::1]:8080".into()),
        minor_version: 1,
        status: Some(503),
        ..HttpCall::default()
    };
    let mut call = Call::begin(Monotonic(5_000_000), 7, Detail::Http(Box::new(http)));
    call.answered = Some(Monotonic(7_000_000));
    call.end = Monotonic(9_500_000);
    call.request.bytes = 40;
    call.response = Half { position: Some(0), bytes: 100, body_bytes: 20, gap_bytes: 3 };
    assert_eq!(
        json(&call),
        concat!(
            r#"{"call.start":"2023-11-14T22:13:20.005000000Z","call.duration":0.0045,"call.latency":0.002,"#,
            r#""network.protocol.name":"http","network.protocol.version":"1.1","http.request.method":"GET","#,
            r#""server.address":"[::1]","server.port":8080,"url.path":"/a","url.query":"b=c","#,
            r#""http.response.status_code":503,"http.request.body.size":0,"http.response.body.size":20,"#,
            r#""error.type":"503","call.request.bytes":40,"call.response.bytes":100,"call.response.gap.bytes":3,"#,
            r#""call.complete":false,"call.ending":"complete"}"#,
            "\n"
        )
    );
}

#[test]
fn text_is_cut_between_letters() {
    assert_eq!(text("aé".as_bytes(), 3), "aé");
    assert_eq!(text("aé".as_bytes(), 2), "a");
    assert_eq!(text(b"a\xff", 9), "a\u{fffd}");
    assert_eq!(text("é".as_bytes(), 1), "");
    assert_eq!(text(b"", 1), "");
}
