//! The inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../fuzz/checks/dispatcher.rs"]
mod dispatcher;
#[path = "../../fuzz/checks/event_paths.rs"]
mod event_paths;

#[test]
fn whatever_happens_the_dispatcher_asks_for_what_is_possible() {
    corpus::replay("dispatcher", dispatcher::check);
}

#[test]
fn a_path_means_what_a_slow_and_obvious_parser_says() {
    corpus::replay("event_paths", event_paths::check);
}
