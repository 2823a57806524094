//! The documents name the tests that hold what they say: those tests exist.

use std::fs;
use std::path::Path;

#[test]
fn every_test_that_a_document_names_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    for document in ["SPECIFICATION.md", "docs/reliability.md", "docs/contract.md"] {
        let text = fs::read_to_string(root.join(document)).unwrap();
        let named = text.split('`').skip(1).step_by(2);
        let mut count = 0;
        for name in named.filter(|name| name.contains(".rs") && name.contains('/')) {
            let (path, test) = name.split_once("::").unwrap_or((name, ""));
            let source = fs::read_to_string(root.join(path));
            let source = source.unwrap_or_else(|error| panic!("{document}: {name}: {error}"));
            assert!(source.contains(&format!("fn {test}")), "{document}: {name}");
            count += 1;
        }
        assert!(count > 0, "{document} names no test");
    }
}
