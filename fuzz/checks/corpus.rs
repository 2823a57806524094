//! Runs a check on every input that is kept for it.

use std::fs;
use std::path::Path;

pub(crate) fn replay(name: &str, check: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
    let files = fs::read_dir(&corpus).expect("a corpus beside the workspace");
    let mut replayed = 0;
    for file in files {
        let path = file.expect("a file").path();
        println!("{}", path.display()); // Shown if the check fails.
        check(&fs::read(&path).expect("an input"));
        replayed += 1;
    }
    assert!(replayed > 0, "the corpus is empty");
}
