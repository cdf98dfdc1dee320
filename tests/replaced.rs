//! A rolling deploy, in short; its long form is `cargo bench -p hearsay-tests --bench rolling`.

use std::time::Duration;

use anyhow::Result;
use hearsay_tests::rolling::{Plan, roll};

#[tokio::test(flavor = "multi_thread")]
async fn every_process_is_replaced_while_five_speak_and_fifty_listen() -> Result<()> {
    let plan = Plan {
        speakers: 5,
        listeners: 50,
        meetings: 2,
        rounds: 1,
        between: Duration::from_millis(500),
        speech: 6.0,
        settings: vec![("HEARSAY__GATEWAY__DRAIN_SPREAD", "2s".to_owned())],
    };
    let outcome = Box::pin(roll(&plan)).await?;
    println!("{outcome:?}");
    assert_eq!(outcome.replaced, 4);
    // Each gateway had some of everybody, and asked them to go.
    assert!(outcome.speakers_returned >= 4 && outcome.listeners_returned >= 50, "{outcome:?}");
    // No stream went without its gateway's having looked where it was.
    assert!(outcome.handed_over.values().sum::<f64>() >= 4.0, "{outcome:?}");
    Ok(())
}
