//! What gaps do, wherever they are.

use super::*;

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn a_gap_within_a_body_is_counted_and_the_body_goes_on() {
    let script = [
        client("PUT /a HTTP/1.1\r\nContent-Length: 10\r\n\r\nabc"),
        Line::Gap(Part::Client, 7),
        server("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nA\r\nab"),
        Line::Gap(Part::Server, 8),
        server("\r\n0\r\n\r\n"),
        client("GET /b HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 200 OK\r\n\r\nuntil"),
        Line::Gap(Part::Server, 5),
        server("close"),
        Line::Ends(Part::Server),
    ];
    let calls = check(&script, &["PUT /a 200 49+10 67+10 complete", "GET /b 200 19+0 34+15 complete"]);
    assert_eq!(
        (calls[0].request.gap_bytes, calls[0].response.gap_bytes, calls[1].response.gap_bytes),
        (7, 8, 5)
    );
    assert!(calls.iter().all(|call| !call.is_complete() && !call.is_inferred));
}

#[test]
fn after_a_gap_the_next_turn_is_understood_again() {
    let script = [
        client("GET /a HTTP/1.1\r\n\r\nGET /"),
        Line::Gap(Part::Client, 40),
        client("GET /fake HTTP/1.1\r\n\r\n"),
        server(ok("a")),
        server(ok("lost")),
        client("GET /c HTTP/1.1\r\n\r\n"),
        server("HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n"),
    ];
    let expected =
        ["GET /a 200 19+0 39+1 complete", "- - 200 0+0 42+4 no-request", "GET /c 404 19+0 38+0 complete"];
    let calls = check(&script, &expected);
    assert_eq!(calls.iter().map(|call| call.is_inferred).collect::<Vec<_>>(), [false, false, true]);

    // What was in the answer that a gap began is not taken for an answer.
    let script = [
        client("GET /a HTTP/1.1\r\n\r\n"),
        Line::Gap(Part::Server, 60),
        server("\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        server(ok("fake")),
        client("GET /b HTTP/1.1\r\n\r\n"),
        server(ok("b")),
    ];
    check(&script, &["GET /a - 19+0 0+0 gap", "GET /b 200 19+0 39+1 complete"]);
}

#[test]
fn who_does_not_wait_for_answers_is_not_matched_after_a_gap() {
    let script = [
        client("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n"),
        server(ok("a")),
        Line::Gap(Part::Server, 20),
        client("GET /c HTTP/1.1\r\n\r\n"),
        server(ok("b or c")),
    ];
    let expected = [
        "GET /a 200 19+0 39+1 complete",
        "GET /b - 19+0 0+0 gap",
        "GET /c - 19+0 0+0 unmatched",
        "- - 200 0+0 44+6 no-request",
    ];
    check(&script, &expected);
}

#[test]
fn a_connection_that_is_joined_in_the_middle_is_understood_from_the_next_request_on() {
    let script = [
        server("rest of a body\r\nHTTP/1.1 200 OK\r\n\r\n"),
        client("rest=of&a=form"),
        server(ok("unseen")),
        client("GET /b HTTP/1.1\r\n\r\n"),
        server(ok("b")),
    ];
    let calls = script::calls(Protocol::Http, Trust::Inferred, &script);
    assert_eq!(shown(&calls), ["GET /b 200 19+0 39+1 complete"]);
    assert!(calls[0].is_inferred);
}

/// Calls whose statuses are told by their targets; bodies look like messages to confuse.
fn conversation(seed: &[u8], is_pipelined: bool) -> Vec<Line> {
    let mut script = Vec::new();
    let mut held = Vec::new();
    for (number, kind) in seed.iter().enumerate() {
        let status = 400 + number;
        let target = format!("/{status}");
        let fake = "GET /999 HTTP/1.1\r\n\r\nHTTP/1.1 999 No\r\nContent-Length: 0\r\n\r\n";
        let request = match kind % 4 {
            0 => format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"),
            1 => format!("HEAD {target} HTTP/1.1\r\n\r\n"),
            2 => format!("POST {target} HTTP/1.1\r\nContent-Length: {}\r\n\r\n{fake}", fake.len()),
            _ => format!(
                "POST {target} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{fake}\r\n0\r\n\r\n",
                fake.len()
            ),
        };
        let response = match kind / 4 % 3 {
            _ if kind % 4 == 1 => format!("HTTP/1.1 {status} X\r\nContent-Length: 70\r\n\r\n"),
            0 => format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n{fake}", fake.len()),
            1 => format!(
                "HTTP/1.1 {status} X\r\nTransfer-Encoding: chunked\r\n\r\n{:x}\r\n{fake}\r\n0\r\n\r\n",
                fake.len()
            ),
            _ => format!("HTTP/1.1 100 C\r\n\r\nHTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n"),
        };
        script.push(client(request));
        if is_pipelined && kind % 5 != 0 {
            held.push(response);
        } else {
            held.push(response);
            script.extend(held.drain(..).map(server));
        }
    }
    script.extend(held.drain(..).map(server));
    script
}

fn check_statuses(calls: &[Call], with_inferred: bool) -> Result<(), TestCaseError> {
    for call in calls {
        let Detail::Http(http) = &call.detail else { panic!("{call:?}") };
        let (Some(status), false) = (http.status, http.target.is_empty()) else { continue };
        if !call.is_inferred || with_inferred {
            prop_assert_eq!(http.target.clone(), format!("/{status}"), "{:?}", call);
        }
    }
    Ok(())
}

#[test]
fn no_gap_gives_a_request_the_answer_of_another() {
    script::no_gap_gives_a_request_the_answer_of_another(Protocol::Http, 0, conversation, check_statuses);
}
