//! What a broker must do, checked on both implementations: in process always, and on a real Kafka.
//!
//! Contract: each property is one function over `dyn Broker`, run twice: as `embedded::NAME` and as `kafka::NAME`.
//! The second needs `KAFKA_BOOTSTRAP` (scripts/test sets it) and fails without it; select with
//! `cargo test --test broker_contract embedded::` or leave out with `-- --skip kafka`.
//! Trap: waits are generous because a Kafka group takes seconds to settle; what is asserted is order and count, not speed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../support/kafka.rs"]
mod support;

mod bed;
mod groups;
mod publishing;
mod settling;
mod topics;

macro_rules! contract {
    ($($room:ident :: $name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$room::$name(crate::bed::Bed::embedded().await).await;
            })*
        }
        mod kafka {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                crate::$room::$name(crate::bed::Bed::kafka().await).await;
            })*
        }
    };
}

contract!(
    publishing::publishing_keeps_the_order_of_a_partition,
    publishing::a_record_arrives_as_it_was,
    publishing::what_cannot_be_published_is_named,
    settling::holds_no_more_than_its_bound_and_is_not_evicted_for_that,
    settling::delivers_again_from_the_first_unsettled,
    settling::stopping_ends_deliveries_and_still_settles,
    settling::an_oversize_message_is_named_and_not_copied,
    groups::two_share_and_one_takes_over,
    groups::a_settlement_after_revocation_is_ignored,
    groups::dropping_the_handle_leaves_the_group,
    groups::a_focus_reads_one_territory_after_the_other,
    groups::lag_and_members_are_told,
    groups::a_member_waits_for_its_topic,
    topics::a_reader_gets_all_from_the_beginning_then_the_tail,
    topics::topics_are_made_grown_described_and_deleted,
    topics::a_topic_made_anew_under_a_member_is_read_anew,
);
