//! The profiles of Amazon's tools: `~/.aws/config` and `~/.aws/credentials`. Pure.

use std::collections::BTreeMap;

/// What makes a profile ask somebody for its credentials, which only Amazon's own tools do.
const ASKED_FOR: [&str; 6] = [
    "sso_session",
    "sso_start_url",
    "role_arn",
    "credential_process",
    "source_profile",
    "web_identity_token_file",
];

/// The settings of a profile under the names of the environment's variables: static keys, region
/// and endpoint. `profile` is the one that was asked for; without one it is `default`, which need
/// not exist. What is in `known` already is left alone.
pub fn settings(
    config: &str,
    credentials: &str,
    profile: Option<&str>,
    known: &BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, String> {
    let name = profile.unwrap_or("default");
    // Only the default one is written without the word.
    let written = format!("profile {name}");
    let own = match name {
        "default" => section(config, &["default", &written]),
        _ => section(config, &[&written]),
    };
    let with_keys = section(credentials, &[name]);
    if own.is_none() && with_keys.is_none() {
        return match profile {
            None => Ok(BTreeMap::new()),
            Some(name) => Err(format!(
                "there is no profile \"{name}\" in ~/.aws/config or ~/.aws/credentials; AWS_PROFILE \
                 names it"
            )),
        };
    }
    let mut found = own.unwrap_or_default();
    found.extend(with_keys.unwrap_or_default());
    let mut settings = BTreeMap::new();
    let mut set = |variable: &str, value: Option<&String>| {
        if let (Some(value), false) = (value, known.contains_key(variable)) {
            settings.insert(variable.to_owned(), value.clone());
        }
    };
    if !known.contains_key("AWS_DEFAULT_REGION") {
        set("AWS_REGION", found.get("region"));
    }
    let endpoint = found.get("endpoint_url");
    set("AWS_ENDPOINT_URL", endpoint);
    if endpoint.is_some_and(|url| url.starts_with("http://")) {
        set("AWS_ALLOW_HTTP", Some(&"true".to_owned()));
    }
    let own = ["AWS_ACCESS_KEY_ID", "AWS_WEB_IDENTITY_TOKEN_FILE"];
    if own.iter().any(|name| known.contains_key(*name)) {
        return Ok(settings);
    }
    if found.contains_key("aws_access_key_id") {
        set("AWS_ACCESS_KEY_ID", found.get("aws_access_key_id"));
        set("AWS_SECRET_ACCESS_KEY", found.get("aws_secret_access_key"));
        set("AWS_SESSION_TOKEN", found.get("aws_session_token"));
    } else if let Some(way) = ASKED_FOR.iter().find(|way| found.contains_key(**way)) {
        return Err(format!(
            "the AWS profile \"{name}\" gets its credentials by {way}, which is not supported; let \
             Amazon's tool fetch them: eval \"$(aws configure export-credentials --profile {name} \
             --format env)\""
        ));
    }
    Ok(settings)
}

/// What is in the first of these sections that is there.
fn section(text: &str, names: &[&str]) -> Option<BTreeMap<String, String>> {
    let mut sections: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut current = None;
    for line in text.lines() {
        // What is further in belongs to the settings of one service.
        let is_nested = line.starts_with([' ', '\t']);
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split(']').next()) {
            let name = name.split_whitespace().collect::<Vec<_>>().join(" ");
            sections.entry(name.clone()).or_default();
            current = Some(name);
        } else if let (Some((key, value)), Some(name), false) =
            (line.split_once('='), &current, is_nested)
        {
            let pairs = sections.entry(name.clone()).or_default();
            pairs.insert(key.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    names.iter().find_map(|name| sections.remove(*name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = "\
# a comment
[default]
region = eu-north-1
s3 =
  max_concurrent_requests = 20
[profile yard]
region=eu-central-1
endpoint_url = http://127.0.0.1:9000
[profile sso]
sso_session = mine
region = us-east-1
[ profile  role ]
role_arn = arn:aws:iam::1:role/x
source_profile = yard
";
    const CREDENTIALS: &str = "\
[default]
aws_access_key_id = D
aws_secret_access_key = DS
[yard]
aws_access_key_id = Y
aws_secret_access_key = YS=
aws_session_token = YT
";

    fn found(profile: Option<&str>, known: &[(&str, &str)]) -> Result<Vec<String>, String> {
        let known = known.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let settings = settings(CONFIG, CREDENTIALS, profile, &known)?;
        Ok(settings.into_iter().map(|(name, value)| format!("{name}={value}")).collect())
    }

    #[test]
    fn a_profile_gives_keys_region_and_endpoint() {
        let default = ["AWS_ACCESS_KEY_ID=D", "AWS_REGION=eu-north-1", "AWS_SECRET_ACCESS_KEY=DS"];
        assert_eq!(found(None, &[]).unwrap(), default);
        let yard = [
            "AWS_ACCESS_KEY_ID=Y",
            "AWS_ALLOW_HTTP=true",
            "AWS_ENDPOINT_URL=http://127.0.0.1:9000",
            "AWS_REGION=eu-central-1",
            "AWS_SECRET_ACCESS_KEY=YS=",
            "AWS_SESSION_TOKEN=YT",
        ];
        assert_eq!(found(Some("yard"), &[]).unwrap(), yard);
        assert_eq!(settings("", "", None, &BTreeMap::new()), Ok(BTreeMap::new()));
    }

    #[test]
    fn the_environment_wins() {
        let own = [("AWS_ACCESS_KEY_ID", "E"), ("AWS_DEFAULT_REGION", "r")];
        assert_eq!(found(None, &own).unwrap(), Vec::<String>::new());
        // With keys of its own, how the profile gets them does not matter.
        assert_eq!(found(Some("sso"), &own[..1]).unwrap(), ["AWS_REGION=us-east-1"]);
        let token = [("AWS_WEB_IDENTITY_TOKEN_FILE", "t")];
        assert_eq!(found(None, &token).unwrap(), ["AWS_REGION=eu-north-1"]);
    }

    #[test]
    fn what_has_to_be_asked_for_is_refused_by_name() {
        for (profile, part) in
            [("sso", "by sso_session"), ("role", "by role_arn"), ("gone", "no profile \"gone\"")]
        {
            let error = found(Some(profile), &[]).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }
}
