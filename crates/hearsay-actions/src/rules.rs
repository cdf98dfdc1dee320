//! Which rules a conversation and what happens in it are matched by.

use hearsay_protocol::ConversationKey;

use crate::config::{Config, Mail, On, Webhook};

/// Webhooks for something that happened, with how sure that is.
pub(crate) fn webhooks<'a>(
    config: &'a Config,
    key: &'a ConversationKey,
    on: On,
    confidence: f64,
) -> impl Iterator<Item = &'a Webhook> {
    config.webhooks.iter().filter(move |rule| {
        rule.on.contains(&on)
            && confidence >= f64::from(rule.min_confidence) - 1e-6
            && applies(&rule.accounts, &rule.meetings, key)
    })
}

pub(crate) fn mails<'a>(config: &'a Config, key: &'a ConversationKey) -> impl Iterator<Item = &'a Mail> {
    config.mails.iter().filter(|rule| applies(&rule.accounts, &rule.meetings, key))
}

fn applies(accounts: &[String], meetings: &[String], key: &ConversationKey) -> bool {
    let (account, meeting) = (key.meeting.account.as_str(), key.meeting.meeting.as_str());
    let account = accounts.is_empty() || accounts.iter().any(|it| it == account);
    let named = |pattern: &String| match pattern.strip_suffix('*') {
        Some(start) => meeting.starts_with(start),
        None => meeting == pattern,
    };
    account && (meetings.is_empty() || meetings.iter().any(named))
}

#[cfg(test)]
mod tests {
    use hearsay_protocol::{AccountId, ConversationId, MeetingId, MeetingKey};

    use super::*;

    #[test]
    fn rules_are_matched_by_account_meeting_kind_and_confidence() {
        let key = ConversationKey {
            meeting: MeetingKey { account: AccountId::dev(), meeting: MeetingId::new("sales-7").unwrap() },
            conversation: ConversationId::from_random(1),
        };
        let rule = |meetings: &[&str], accounts: &[&str]| Webhook {
            name: "x".to_owned(),
            url: "https://example.com".to_owned(),
            secret_file: "x".into(),
            on: vec![On::ActionItem],
            min_confidence: 0.7,
            accounts: accounts.iter().map(|&it| it.to_owned()).collect(),
            meetings: meetings.iter().map(|&it| it.to_owned()).collect(),
        };
        let count = |rule: Webhook, on: On, confidence: f64| {
            let config = Config { webhooks: vec![rule], ..Config::default() };
            webhooks(&config, &key, on, confidence).count()
        };
        assert_eq!(count(rule(&[], &[]), On::ActionItem, 0.7), 1);
        assert_eq!(count(rule(&[], &[]), On::ActionItem, 0.69), 0);
        assert_eq!(count(rule(&[], &[]), On::Question, 1.0), 0);
        assert_eq!(count(rule(&["x", "sales-*"], &["dev"]), On::ActionItem, 1.0), 1);
        assert_eq!(count(rule(&["sales"], &[]), On::ActionItem, 1.0), 0);
        assert_eq!(count(rule(&["sales-7"], &["other"]), On::ActionItem, 1.0), 0);
    }
}
