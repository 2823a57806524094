//! A client's use of answers: long directories, transactions, batches, and malformed answers.

mod support;

use support::device::client;
use support::store::{answer, refusal};
use xs_client::{Batch, Error, Outcome, ProtocolError};
use xs_proto::{ErrorCode, MessageType, PathError, Permission, Reply};

fn part(generation: &str, names: &str) -> (MessageType, Vec<u8>) {
    (MessageType::DirectoryPart, format!("{generation}\0{names}").into_bytes())
}

#[test]
fn a_long_directory_is_read_in_parts() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().store.scripted.extend([
        refusal(ErrorCode::TooBig),
        part("7", "vif\0vbd\0"),
        part("7", "qdisk\0\0"),
    ]);
    assert_eq!(client.directory("backend").unwrap(), [&b"vif"[..], b"vbd", b"qdisk"]);
    let kernel = kernel.lock().unwrap();
    assert!(kernel.writes[1].ends_with(b"backend\x000\0"));
    assert!(kernel.writes[2].ends_with(b"backend\x008\0"));
}

#[test]
fn a_directory_that_changes_between_its_parts_is_read_again() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().store.scripted.extend([
        refusal(ErrorCode::TooBig),
        part("7", "a\0b\0"),
        part("8", "d\0\0"),
        part("8", "b\0c\0"),
        part("8", "d\0\0"),
    ]);
    assert_eq!(client.directory("backend").unwrap(), [b"b", b"c", b"d"]);
}

#[test]
fn a_directory_that_never_stops_changing_is_given_up() {
    let (mut client, kernel) = client();
    {
        let scripted = &mut kernel.lock().unwrap().store.scripted;
        scripted.push_back(refusal(ErrorCode::TooBig));
        scripted.extend((0..1000).map(|i| part(&i.to_string(), "a\0")));
    }
    let error = client.directory("backend").unwrap_err();
    assert_eq!(error.refusal(), Some(&ErrorCode::Again));
}

#[test]
fn a_directory_without_an_end_is_an_error() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().store.scripted.extend([refusal(ErrorCode::TooBig), part("7", "")]);
    let error = client.directory("backend").unwrap_err();
    assert!(matches!(error, Error::Protocol(ProtocolError::EndlessDirectory)), "{error}");
}

#[test]
fn a_store_without_parts_has_a_directory_that_is_too_big() {
    let (mut client, kernel) = client();
    let answers = [refusal(ErrorCode::TooBig), refusal(ErrorCode::NoSys)];
    kernel.lock().unwrap().store.scripted.extend(answers);
    let error = client.directory("backend").unwrap_err();
    assert_eq!(error.refusal(), Some(&ErrorCode::TooBig));
}

#[test]
fn an_aborted_transaction_gives_its_value_and_commits_nothing() {
    let (mut client, kernel) = client();
    let result = client.transaction(|tx| {
        tx.write("a", "v")?;
        Ok(Outcome::Abort("seen enough"))
    });
    assert_eq!(result.unwrap(), "seen enough");
    let store = &kernel.lock().unwrap().store;
    assert_eq!((store.commits, store.aborts), (0, 1));
    assert!(store.transactions.is_empty());
}

#[test]
fn a_failed_transaction_is_dropped_and_its_error_told() {
    let (mut client, kernel) = client();
    let result = client.transaction(|tx| tx.read("missing").map(Outcome::Commit));
    assert!(result.unwrap_err().is_missing());
    let store = &kernel.lock().unwrap().store;
    assert_eq!((store.commits, store.aborts), (0, 1));
}

#[test]
fn body_fails_with_an_error_of_its_own() {
    #[derive(Debug)]
    enum Failure {
        NoVif,
        Store(Error),
    }

    impl From<Error> for Failure {
        fn from(error: Error) -> Self {
            Self::Store(error)
        }
    }

    let (mut client, kernel) = client();
    let result = client.transaction_or(|tx| match tx.exists("backend/vif")? {
        true => Ok(Outcome::Commit(())),
        false => Err(Failure::NoVif),
    });
    assert!(matches!(result, Err(Failure::NoVif)), "{result:?}");
    let result = client.transaction_or(|tx| {
        tx.read("missing")?;
        Ok::<_, Failure>(Outcome::Commit(()))
    });
    assert!(matches!(&result, Err(Failure::Store(error)) if error.is_missing()), "{result:?}");
    let store = &kernel.lock().unwrap().store;
    assert_eq!((store.commits, store.aborts), (0, 2));
}

#[test]
fn operations_of_a_transaction_carry_its_id() {
    let (mut client, kernel) = client();
    let mut batch = Batch::new();
    batch.write("b", "v");
    batch.read("b");
    client
        .transaction(|tx| {
            tx.write("a", "v")?;
            tx.run(&mut batch)?;
            Ok(Outcome::Commit(()))
        })
        .unwrap();
    assert_eq!(batch.reply(1), Ok(&b"v"[..]));
    let tx_ids: Vec<u8> = kernel.lock().unwrap().writes.iter().map(|write| write[8]).collect();
    assert_eq!(tx_ids, [0, 1, 1, 1, 1]);
}

#[test]
fn a_batch_on_the_device_is_sent_one_by_one() {
    let (mut client, kernel) = client();
    for i in 0..32 {
        kernel.lock().unwrap().store.nodes.insert(format!("n{i}").into(), vec![i]);
    }
    let mut batch = Batch::new();
    for i in 0..32 {
        assert_eq!(batch.read(format!("n{i}")), i);
    }
    client.run(&mut batch).unwrap();
    for i in 0..32u8 {
        assert_eq!(batch.reply(i.into()), Ok(&[i][..]));
    }
    assert_eq!(kernel.lock().unwrap().most_under_way, 1);
}

#[test]
fn each_entry_of_a_batch_has_its_own_answer() {
    let (mut client, kernel) = client();
    let mut batch = Batch::new();
    let write = batch.write("a", "v");
    let read = batch.read("a");
    let missing = batch.read("missing");
    let no_path = batch.read("a//b");
    let owner = Permission { domid: 0, access: xs_proto::Access::None };
    let no_permissions = batch.set_permissions("a", &[]);
    let permissions = batch.set_permissions("a", &[owner]);
    let removed = batch.rm("a");
    let gone = batch.read("a");
    assert_eq!(batch.reply(read), Err(&ErrorCode::Io), "not run yet");
    client.run(&mut batch).unwrap();
    assert_eq!(batch.reply(write), Ok(&b""[..]));
    assert_eq!(batch.reply(read), Ok(&b"v"[..]));
    assert_eq!(batch.reply(missing), Err(&ErrorCode::NoEnt));
    assert_eq!(batch.reply(no_path), Err(&ErrorCode::Inval));
    assert_eq!(batch.reply(no_permissions), Err(&ErrorCode::Inval));
    assert_eq!(batch.reply(permissions), Err(&ErrorCode::NoSys), "of this store");
    assert_eq!(batch.reply(removed), Ok(&b""[..]));
    assert_eq!(batch.reply(gone), Err(&ErrorCode::NoEnt));
    assert_eq!(batch.reply(99), Err(&ErrorCode::Io));
    assert_eq!(kernel.lock().unwrap().writes.len(), 6);

    batch.clear();
    assert!(batch.is_empty());
    client.run(&mut batch).unwrap();
    assert_eq!(kernel.lock().unwrap().writes.len(), 6);
}

#[test]
fn what_breaks_a_rule_is_not_sent() {
    let (mut client, kernel) = client();
    assert!(matches!(client.read("a//b"), Err(Error::Path(PathError::EmptyComponent))));
    assert!(matches!(client.watch("", "t"), Err(Error::Path(PathError::Empty))));
    assert!(matches!(client.watch("a", "t\0"), Err(Error::Nul)));
    assert!(matches!(client.control(&[b"log", b"o\0n"]), Err(Error::Nul)));
    let error = client.set_permissions("a", &[]).unwrap_err();
    assert_eq!(error.refusal(), Some(&ErrorCode::Inval));
    assert!(client.unwatch("a", "t").unwrap_err().is_missing());
    assert!(kernel.lock().unwrap().writes.is_empty());
}

#[test]
fn an_answer_that_is_none_fails_its_request_only() {
    let (mut client, kernel) = client();
    kernel.lock().unwrap().store.scripted.extend([
        answer(&Reply::Ok(MessageType::Write)),
        (MessageType::Write, b"maybe\0".to_vec()),
        (MessageType::Error, b"no NUL".to_vec()),
    ]);
    let wrong = ProtocolError::WrongType { asked: MessageType::Read, answered: MessageType::Write };
    assert!(matches!(client.read("a"), Err(Error::Protocol(error)) if error == wrong));
    let malformed = ProtocolError::Malformed(MessageType::Write);
    assert!(matches!(client.write("a", "v"), Err(Error::Protocol(error)) if error == malformed));
    assert!(matches!(client.write("a", "v"), Err(Error::Protocol(error)) if error == malformed));
    client.write("a", "v").unwrap();
}

#[test]
fn silent_store_times_out_and_closes_the_connection() {
    let (mut client, kernel) = client();
    client.watch("backend", "t").unwrap();
    client.set_timeout(std::time::Duration::from_millis(20));
    kernel.lock().unwrap().read_limit = 0;
    assert!(matches!(client.read("a"), Err(Error::TimedOut)));
    assert!(!client.is_connected());
    assert!(matches!(client.read("a"), Err(Error::Disconnected(_))));
    kernel.lock().unwrap().read_limit = usize::MAX;
    // A busy machine is slower than that.
    client.set_timeout(std::time::Duration::from_secs(60));
    client.reconnect().unwrap();
    client.write("a", "v").unwrap();
}
