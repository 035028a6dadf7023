//! Who is told, and what is sent to them: each service's own form of a message, without sending it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Value, json};

use super::engine::{Alert, Message, Stage};
use super::rules::Grouping;

/// How long Alertmanager takes an alert for firing that it is not told of again.
const BELIEVED: SignedDuration = SignedDuration::from_mins(5);

/// Something that must not be shown: as text, or where it is found.
///
/// `"text"`, `{ env = "NAME" }` or `{ file = "/run/secrets/name" }`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// It is this.
    Plain(String),
    /// It is in this variable of the environment.
    Env {
        /// The variable.
        env: String,
    },
    /// It is in this file, without the white space around it.
    File {
        /// The file.
        file: PathBuf,
    },
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

impl Serialize for Secret {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("(secret)")
    }
}

impl Secret {
    /// Looks for it; `environment` gives a variable's value.
    fn found(&self, environment: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
        match self {
            Self::Plain(text) => Ok(text.clone()),
            Self::Env { env } => environment(env).ok_or_else(|| format!("${env} is not set")),
            Self::File { file } => match std::fs::read_to_string(file) {
                Ok(text) => Ok(text.trim().to_owned()),
                Err(error) => Err(format!("{}: {error}", file.display())),
            },
        }
    }

    /// The text, once it was [found](Notifier::find_secrets).
    fn text(&self) -> &str {
        match self {
            Self::Plain(text) => text,
            _ => "",
        }
    }
}

/// Who is told, and how.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase", deny_unknown_fields)]
pub enum Notifier {
    /// A channel of Slack, by an incoming webhook.
    Slack {
        /// The webhook's address, which is a secret.
        url: Secret,
    },
    /// A channel of Microsoft Teams, by a workflow that posts an adaptive card.
    Teams {
        /// The workflow's address, which is a secret.
        url: Secret,
    },
    /// A service of PagerDuty, by its Events API v2.
    PagerDuty {
        /// The service's integration key.
        routing_key: Secret,
        /// Where the API is.
        #[serde(default = "pager_duty")]
        url: String,
    },
    /// Opsgenie, by its Alert API.
    Opsgenie {
        /// The integration's key.
        api_key: Secret,
        /// Where the API is; `https://api.eu.opsgenie.com` in Europe.
        #[serde(default = "opsgenie")]
        url: String,
    },
    /// Any address that takes JSON, in the form of Alertmanager's webhooks.
    Webhook {
        /// Where to.
        url: Secret,
        /// Signs the message, as Standard Webhooks do: `whsec_` and base64, or any text.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        secret: Option<Secret>,
        /// Further headers.
        #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
        headers: BTreeMap<String, Secret>,
    },
    /// Mail.
    Email {
        /// The server: `smtp://host:25`, `smtps://user@host:465`, or with STARTTLS
        /// `smtp://user@host:587?tls=required`.
        smtp: String,
        /// The sender.
        from: String,
        /// The receivers.
        to: Vec<String>,
        /// The password of the server's user.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        password: Option<Secret>,
    },
    /// An Alertmanager of Prometheus, which does the grouping itself.
    Alertmanager {
        /// Where it is, such as `http://127.0.0.1:9093`.
        url: String,
    },
    /// A program, which gets the message of a webhook as its input.
    Command {
        /// The program and its arguments.
        command: Vec<String>,
    },
}

/// One thing to send.
#[derive(Clone, Debug, PartialEq)]
pub enum Sending {
    /// A POST of JSON.
    Post {
        /// Where to.
        url: String,
        /// Headers beside `content-type`.
        headers: Vec<(String, String)>,
        /// What.
        body: Vec<u8>,
    },
    /// A mail.
    Mail {
        /// The server, the sender and the receivers.
        server: Mailing,
        /// The subject.
        subject: String,
        /// The text.
        text: String,
        /// The same for the same group, so that its mails make a thread.
        thread: String,
    },
    /// A program to be run with this input.
    Run {
        /// The program and its arguments.
        command: Vec<String>,
        /// Its input.
        input: Vec<u8>,
    },
}

/// Where a mail goes and by whom.
#[derive(Clone, PartialEq)]
pub struct Mailing {
    /// The server, without the password.
    pub smtp: String,
    /// The password of the user in it.
    pub password: Option<String>,
    /// The sender.
    pub from: String,
    /// The receivers.
    pub to: Vec<String>,
}

impl fmt::Debug for Mailing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {} to {:?}", self.smtp, self.from, self.to)
    }
}

fn pager_duty() -> String {
    "https://events.pagerduty.com".to_owned()
}

fn opsgenie() -> String {
    "https://api.opsgenie.com".to_owned()
}

impl Notifier {
    pub(super) fn check(&self) -> Result<(), String> {
        let addresses: Vec<&str> = match self {
            Self::PagerDuty { url, .. }
            | Self::Opsgenie { url, .. }
            | Self::Alertmanager { url } => {
                vec![url]
            }
            Self::Slack { url: Secret::Plain(url) }
            | Self::Teams { url: Secret::Plain(url) }
            | Self::Webhook { url: Secret::Plain(url), .. } => vec![url],
            Self::Email { smtp, to, .. } => {
                if to.is_empty() {
                    return Err("`to` names nobody".into());
                }
                let scheme = smtp.split_once("://").map(|(scheme, _)| scheme);
                return match scheme {
                    Some("smtp" | "smtps") => Ok(()),
                    _ => {
                        Err("`smtp` is no address of a mail server, such as smtp://host:25".into())
                    }
                };
            }
            Self::Command { command } => {
                let is_empty = command.first().is_none_or(String::is_empty);
                return if is_empty { Err("`command` names no program".into()) } else { Ok(()) };
            }
            _ => Vec::new(),
        };
        match addresses.iter().find(|url| !is_address(url)) {
            // An address may be a secret itself.
            Some(_) => Err("`url` is no address that begins with http:// or https://".into()),
            None => Ok(()),
        }
    }

    /// Looks for what must not be shown; `environment` gives a variable's value.
    pub fn find_secrets(
        &mut self,
        environment: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), String> {
        let secrets: Vec<&mut Secret> = match self {
            Self::Slack { url } | Self::Teams { url } => vec![url],
            Self::PagerDuty { routing_key: key, .. } | Self::Opsgenie { api_key: key, .. } => {
                vec![key]
            }
            Self::Webhook { url, secret, headers } => {
                std::iter::once(url).chain(secret.as_mut()).chain(headers.values_mut()).collect()
            }
            Self::Email { password, .. } => password.iter_mut().collect(),
            Self::Alertmanager { .. } | Self::Command { .. } => Vec::new(),
        };
        for secret in secrets {
            *secret = Secret::Plain(secret.found(environment)?);
        }
        self.check()
    }

    /// Alertmanager groups by itself, and forgets alerts that it is not told of again.
    pub(super) fn grouping(&self, usual: &Grouping) -> Grouping {
        match self {
            Self::Alertmanager { .. } => Grouping {
                wait: SignedDuration::ZERO,
                interval: SignedDuration::ZERO,
                repeat: BELIEVED / 5,
                by: usual.by.clone(),
            },
            _ => usual.clone(),
        }
    }

    /// What is to be sent, in this order.
    pub fn sendings(&self, message: &Message, now: Timestamp) -> Vec<Sending> {
        let post = |url: &str, headers, body: &Value| Sending::Post {
            url: url.to_owned(),
            headers,
            body: body.to_string().into_bytes(),
        };
        match self {
            Self::Slack { url } => vec![post(url.text(), Vec::new(), &slack(message))],
            Self::Teams { url } => vec![post(url.text(), Vec::new(), &teams(message))],
            Self::PagerDuty { routing_key, url } => {
                let url = format!("{}/v2/enqueue", url.trim_end_matches('/'));
                let event = |alert| post(&url, Vec::new(), &page(alert, routing_key.text()));
                message.alerts.iter().map(event).collect()
            }
            Self::Opsgenie { api_key, url } => {
                let key = format!("GenieKey {}", api_key.text());
                let headers = vec![("authorization".to_owned(), key)];
                let one = |alert: &Alert| {
                    let base = format!("{}/v2/alerts", url.trim_end_matches('/'));
                    match alert.stage {
                        Stage::Resolved => {
                            let of =
                                format!("{base}/{}/close?identifierType=alias", alert.fingerprint);
                            post(&of, headers.clone(), &json!({"source": "modelyard"}))
                        }
                        _ => post(&base, headers.clone(), &genie(alert)),
                    }
                };
                message.alerts.iter().map(one).collect()
            }
            Self::Webhook { url, secret, headers } => {
                let body = webhook(message).to_string().into_bytes();
                let mut headers: Vec<(String, String)> = headers
                    .iter()
                    .map(|(name, text)| (name.clone(), text.text().to_owned()))
                    .collect();
                headers.extend(signed(secret.as_ref().map(Secret::text), message, now, &body));
                vec![Sending::Post { url: url.text().to_owned(), headers, body }]
            }
            Self::Email { smtp, from, to, password } => {
                let server = Mailing {
                    smtp: smtp.clone(),
                    password: password.as_ref().map(|password| password.text().to_owned()),
                    from: from.clone(),
                    to: to.clone(),
                };
                let thread = format!("{:?}", message.group);
                vec![Sending::Mail { server, subject: title(message), text: text(message), thread }]
            }
            Self::Alertmanager { url } => {
                let url = format!("{}/api/v2/alerts", url.trim_end_matches('/'));
                let alerts: Vec<Value> =
                    message.alerts.iter().map(|alert| prometheus(alert, now)).collect();
                vec![post(&url, Vec::new(), &Value::Array(alerts))]
            }
            Self::Command { command } => vec![Sending::Run {
                command: command.clone(),
                input: webhook(message).to_string().into_bytes(),
            }],
        }
    }
}

fn is_address(url: &str) -> bool {
    url.strip_prefix("https://")
        .or_else(|| url.strip_prefix("http://"))
        .is_some_and(|rest| !rest.is_empty() && !rest.contains(char::is_whitespace))
}

fn fires(message: &Message) -> bool {
    message.alerts.iter().any(|alert| alert.stage == Stage::Firing)
}

fn label<'a>(alert: &'a Alert, name: &str) -> &'a str {
    alert.labels.get(name).map_or("", String::as_str)
}

/// One line on the whole message.
fn title(message: &Message) -> String {
    let firing = message.alerts.iter().filter(|alert| alert.stage == Stage::Firing).count();
    let of = message.group.values().map(String::as_str).collect::<Vec<_>>().join(" ");
    let of = if of.is_empty() { String::new() } else { format!("{of}: ") };
    match (firing, message.alerts.first()) {
        (0, Some(alert)) => format!("[resolved] {of}{}", label(alert, "alertname")),
        (0, None) => format!("[resolved] {of}"),
        (count, _) => {
            let mut names: Vec<&str> =
                message.alerts.iter().map(|alert| label(alert, "alertname")).collect();
            names.sort_unstable();
            names.dedup();
            format!("[firing {count}] {of}{}", names.join(", "))
        }
    }
}

fn line(alert: &Alert) -> String {
    let since = alert.fired.unwrap_or(alert.since);
    match (alert.stage, alert.ended) {
        (Stage::Resolved, Some(ended)) => {
            format!("{} (from {since:.0} to {ended:.0})", alert.summary)
        }
        _ => format!("{} (since {since:.0})", alert.summary),
    }
}

/// All of it as plain text.
fn text(message: &Message) -> String {
    let mut text = String::new();
    for alert in &message.alerts {
        let stage = if alert.stage == Stage::Firing { "FIRING" } else { "RESOLVED" };
        text += &format!(
            "{stage} {} {}\n  {}\n",
            label(alert, "severity"),
            label(alert, "alertname"),
            line(alert)
        );
        for (name, value) in alert.labels.iter().filter(|(name, _)| !is_shown_apart(name)) {
            text += &format!("  {name}: {value}\n");
        }
        if let Some(runbook) = &alert.runbook {
            text += &format!("  what to do: {runbook}\n");
        }
    }
    text
}

fn is_shown_apart(name: &str) -> bool {
    matches!(name, "alertname" | "severity")
}

/// What Slack's markup would take for a link or a mention.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

fn slack(message: &Message) -> Value {
    let attachments: Vec<Value> = message
        .alerts
        .iter()
        .take(20)
        .map(|alert| {
            let color = match (alert.stage, label(alert, "severity")) {
                (Stage::Resolved, _) => "#2e7d32",
                (_, "critical") => "#c62828",
                (_, "info") => "#1565c0",
                _ => "#ef6c00",
            };
            let mut text = escaped(&line(alert));
            if let Some(runbook) = &alert.runbook {
                text += &format!("\n<{}|What to do>", escaped(runbook));
            }
            json!({
                "color": color, "fallback": alert.summary, "text": text,
                "title": label(alert, "alertname"), "ts": alert.since.as_second(),
            })
        })
        .collect();
    json!({"text": escaped(&title(message)), "attachments": attachments})
}

fn teams(message: &Message) -> Value {
    let mut body = vec![json!({
        "type": "TextBlock", "size": "Large", "weight": "Bolder", "wrap": true,
        "text": title(message),
        "color": if fires(message) { "Attention" } else { "Good" },
    })];
    for alert in message.alerts.iter().take(20) {
        body.push(json!({"type": "TextBlock", "wrap": true, "text": line(alert)}));
        let facts: Vec<Value> = alert
            .labels
            .iter()
            .map(|(name, value)| json!({"title": name, "value": value}))
            .collect();
        body.push(json!({"type": "FactSet", "facts": facts}));
    }
    let card = json!({
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard", "version": "1.4", "body": body,
    });
    json!({
        "type": "message",
        "attachments": [{
            "contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null,
            "content": card,
        }],
    })
}

fn page(alert: &Alert, routing_key: &str) -> Value {
    let action = if alert.stage == Stage::Resolved { "resolve" } else { "trigger" };
    let mut event = json!({
        "routing_key": routing_key, "event_action": action, "dedup_key": alert.fingerprint,
    });
    if alert.stage != Stage::Resolved {
        event["payload"] = json!({
            "summary": alert.summary, "severity": label(alert, "severity"),
            "source": alert.labels.get("model").map_or("modelyard", String::as_str),
            "timestamp": alert.fired.unwrap_or(alert.since), "class": label(alert, "alertname"),
            "custom_details": {"labels": alert.labels, "value": alert.value},
        });
        event["client"] = json!("modelyard");
        if let Some(runbook) = &alert.runbook {
            event["links"] = json!([{"href": runbook, "text": "What to do"}]);
        }
    }
    event
}

fn genie(alert: &Alert) -> Value {
    let priority = match label(alert, "severity") {
        "critical" => "P1",
        "info" => "P5",
        _ => "P3",
    };
    let message: String = alert.summary.chars().take(130).collect();
    json!({
        "message": message, "alias": alert.fingerprint, "description": line(alert),
        "priority": priority, "source": "modelyard", "entity": label(alert, "model"),
        "tags": [label(alert, "alertname")], "details": alert.labels,
    })
}

/// An alert as Alertmanager's API takes it.
fn prometheus(alert: &Alert, now: Timestamp) -> Value {
    let ends = match (alert.stage, alert.ended) {
        (Stage::Resolved, Some(ended)) => ended,
        _ => now.saturating_add(BELIEVED).unwrap_or(now),
    };
    let mut annotations = json!({"summary": alert.summary});
    if let Some(runbook) = &alert.runbook {
        annotations["runbook_url"] = json!(runbook);
    }
    json!({
        "labels": alert.labels, "annotations": annotations,
        "startsAt": alert.fired.unwrap_or(alert.since), "endsAt": ends,
    })
}

/// The form of Alertmanager's webhooks, which many services read.
fn webhook(message: &Message) -> Value {
    let status = |fires| if fires { "firing" } else { "resolved" };
    let alerts: Vec<Value> = message
        .alerts
        .iter()
        .map(|alert| {
            let mut one = prometheus(alert, message.at);
            one["status"] = json!(status(alert.stage == Stage::Firing));
            one["fingerprint"] = json!(alert.fingerprint);
            one["value"] = json!(alert.value);
            if alert.stage == Stage::Firing {
                one["endsAt"] = json!("0001-01-01T00:00:00Z");
            }
            one
        })
        .collect();
    json!({
        "version": "4", "id": message.id, "groupKey": format!("{:?}", message.group),
        "status": status(fires(message)), "receiver": message.to, "groupLabels": message.group,
        "title": title(message), "alerts": alerts, "truncatedAlerts": 0,
    })
}

/// The headers of Standard Webhooks: an id to tell repeated messages by, the time, and who sent it.
fn signed(
    secret: Option<&str>,
    message: &Message,
    now: Timestamp,
    body: &[u8],
) -> Vec<(String, String)> {
    use base64::Engine;
    let base64 = &base64::engine::general_purpose::STANDARD;
    let time = now.as_second().to_string();
    let mut headers = vec![
        ("webhook-id".to_owned(), message.id.clone()),
        ("webhook-timestamp".to_owned(), time.clone()),
    ];
    if let Some(secret) = secret {
        let key = secret.strip_prefix("whsec_").and_then(|text| base64.decode(text).ok());
        let key = key.unwrap_or_else(|| secret.as_bytes().to_vec());
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(&key).expect("a key of any length");
        mac.update(format!("{}.{time}.", message.id).as_bytes());
        mac.update(body);
        let signature = base64.encode(mac.finalize().into_bytes());
        headers.push(("webhook-signature".to_owned(), format!("v1,{signature}")));
    }
    headers
}
