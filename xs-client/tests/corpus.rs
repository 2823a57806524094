//! The inputs that fuzzing has found worth keeping, without a fuzzer.

#[path = "../../fuzz/checks/corpus.rs"]
mod corpus;
#[path = "../../fuzz/checks/store.rs"]
mod store;

#[test]
fn the_store_answers_every_request_once_and_keeps_its_quotas() {
    corpus::replay("store", store::check);
}
