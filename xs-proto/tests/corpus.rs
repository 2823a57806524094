//! The inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../fuzz/checks/frames.rs"]
mod frames;
#[path = "../../fuzz/checks/replies.rs"]
mod replies;
#[path = "../../fuzz/checks/requests.rs"]
mod requests;

#[test]
fn a_stream_in_pieces_is_the_messages_of_the_whole() {
    corpus::replay("frames", frames::check);
}

#[test]
fn a_request_is_written_as_what_parses_as_it() {
    corpus::replay("requests", requests::check);
}

#[test]
fn a_reply_is_written_as_what_parses_as_it() {
    corpus::replay("replies", replies::check);
}
