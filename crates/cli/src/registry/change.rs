//! The verbs that change what is there: aliases, a version's life, garbage.

use std::time::Duration;

use ::registry::{Event, Expected, Grace, Record, Reference, Selector, Share};

use super::place::{Author, Place};
use super::{OrFailure, print_json, reference};
use crate::{Failure, units};

/// Flags of `alias`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard alias fraud champion 4 --reason \"better on last week's data\"
  modelyard alias fraud champion 3 --expect 4     only if nobody was faster
  modelyard alias fraud candidate --remove

Moving champion promotes a version, or rolls it back.")]
pub struct Alias {
    /// The model's name
    model: String,
    /// The alias
    alias: String,
    /// The version that it is to name
    #[arg(value_name = "VERSION", required_unless_present = "remove", conflicts_with = "remove")]
    number: Option<u64>,
    /// Take the alias away
    #[arg(long)]
    remove: bool,
    /// The version that it must name now; 0: it must not exist
    #[arg(long, value_name = "NUMBER")]
    expect: Option<u64>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Moves an alias.
pub fn alias(args: Alias) -> Result<(), Failure> {
    let expected = match args.expect {
        None => Expected::Anything,
        Some(0) => Expected::Nothing,
        Some(version) => Expected::Version(version),
    };
    let (model, alias, by) = (&args.model, &args.alias, args.author.by());
    let record = args.place.with(async |registry| {
        registry.set_alias(model, alias, args.number, expected, &by).await.or_failure()
    })?;
    let said = match args.number {
        Some(version) => format!("{model}@{alias} is {model}:{version}"),
        None => format!("{model}@{alias} is gone"),
    };
    print(&args.place, &record, &said)
}

/// Flags of `archive`, `restore` and `delete`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard archive fraud:2     keep it, but let it get neither alias nor traffic
  modelyard delete fraud:2      for good after a week, when garbage is collected
  modelyard restore fraud:2     undo either

A version that has an alias or traffic can be neither archived nor deleted.")]
pub struct OnVersion {
    /// MODEL:NUMBER
    #[arg(value_name = "VERSION", value_parser = reference)]
    named: Reference,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

impl OnVersion {
    /// The model and the number; an alias is refused, because what has one is in use.
    fn numbered(&self) -> Result<(&str, u64), Failure> {
        match self.named.version {
            Selector::Number(number) => Ok((&self.named.model, number)),
            Selector::Alias(_) => Err(Failure::usage(format!(
                "{}: expected a version by its number, {}:NUMBER",
                self.named, self.named.model
            ))),
        }
    }
}

/// Puts a version aside.
pub fn archive(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record = args
        .place
        .with(async |registry| registry.archive(model, number, &by).await.or_failure())?;
    print(&args.place, &record, &format!("{model}:{number} is archived"))
}

/// Makes a version active again.
pub fn restore(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record = args
        .place
        .with(async |registry| registry.restore(model, number, &by).await.or_failure())?;
    print(&args.place, &record, &format!("{model}:{number} is active"))
}

/// Deletes a version.
pub fn delete(args: OnVersion) -> Result<(), Failure> {
    let ((model, number), by) = (args.numbered()?, args.author.by());
    let record =
        args.place.with(async |registry| registry.delete(model, number, &by).await.or_failure())?;
    let said = format!("{model}:{number} is deleted; modelyard restore {model}:{number} undoes it");
    print(&args.place, &record, &said)
}

/// Flags of `collect`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard collect                remove what was deleted more than a week ago
  modelyard collect --grace 1h

Safe while others push and pull: what a version needs is never removed.")]
pub struct Collect {
    /// How long ago a version must have been deleted [default: 7 days]
    #[arg(long, value_name = "TIME", value_parser = units::parse_duration)]
    grace: Option<Duration>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Removes what nothing needs.
pub fn collect(args: Collect) -> Result<(), Failure> {
    let default = Grace::default();
    let grace = Grace { versions: args.grace.unwrap_or(default.versions), ..default };
    let by = args.author.by();
    let collected =
        args.place.with(async |registry| registry.collect(grace, &by).await.or_failure())?;
    if args.place.json {
        return print_json(&collected);
    }
    let size = units::bytes(collected.bytes);
    println!("{} versions and {} files removed, {size}", collected.versions, collected.blobs);
    Ok(())
}

/// Flags of `rollback`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard rollback fraud --reason \"twice the chargebacks since noon\"
  modelyard rollback fraud --expect 4     only if version 4 is still the champion

Takes back what came last: the rollout that is under way, or else the champion, in favour of the one
before it. That one is still loaded if it was champion within the servers' --keep-warm, so the change
takes effect at once. Again, it goes further back.")]
pub struct Rollback {
    /// The model's name
    model: String,
    /// The version that must be the champion now
    #[arg(long, value_name = "NUMBER")]
    expect: Option<u64>,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Goes back to the champion before this one.
pub fn rollback(args: Rollback) -> Result<(), Failure> {
    let (model, by) = (&args.model, args.author.by());
    let record = args
        .place
        .with(async |registry| registry.roll_back(model, args.expect, &by).await.or_failure())?;
    let said = match &record.event {
        Event::RolloutEnded { champion, .. } => {
            format!("the rollout is over; {model}:{champion} has all the traffic")
        }
        Event::AliasMoved { from, to: Some(to), .. } => {
            let from = from.map(|from| format!(" instead of {from}")).unwrap_or_default();
            format!("{model}@champion is {model}:{to}{from}")
        }
        _ => format!("{model} is as it was"),
    };
    print(&args.place, &record, &said)
}

/// Flags of `traffic`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  modelyard traffic fraud 3=90 4=10                   a tenth to version 4
  modelyard traffic fraud 3=1 --shadow 4              version 4 gets a copy, and answers nobody
  modelyard traffic fraud 3=1 4=1 --pin acme=4        whose requests have the key acme get 4
  modelyard traffic fraud --champion                  all to the champion again

Shares are relative to their sum. Requests with a key (header modelyard-key) stay with their version
for as long as the shares allow. Moving the alias champion ends a split.")]
pub struct Traffic {
    /// The model's name
    model: String,
    /// VERSION=SHARE; share 0 serves only those who name the version
    #[arg(value_name = "VERSION=SHARE", value_parser = share, required_unless_present = "champion")]
    shares: Vec<Share>,
    /// A version that gets a copy of the traffic, whose answers nobody sees
    #[arg(long, value_name = "VERSION")]
    shadow: Vec<u64>,
    /// A request key that always gets the version
    #[arg(long, value_name = "KEY=VERSION", value_parser = pin)]
    pin: Vec<(String, u64)>,
    /// Give all the traffic to the champion
    #[arg(long, conflicts_with_all = ["shares", "shadow", "pin"])]
    champion: bool,
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    author: Author,
}

/// Splits the traffic by hand.
pub fn traffic(args: Traffic) -> Result<(), Failure> {
    let mut shares = args.shares;
    for (key, version) in args.pin {
        match shares.iter_mut().find(|share| share.version == version) {
            Some(share) => share.pinned.push(key),
            None => shares.push(Share { pinned: vec![key], ..Share::of(version, 0) }),
        }
    }
    shares.extend(args.shadow.into_iter().map(Share::shadow));
    let (model, by) = (&args.model, args.author.by());
    let said = match shares.is_empty() {
        true => format!("the champion of {model} has all the traffic"),
        false => format!("the traffic of {model}: {}", super::list::split(&shares)),
    };
    let record = args.place.with(async |registry| {
        registry.split_traffic(model, shares, None, &by).await.or_failure()
    })?;
    print(&args.place, &record, &said)
}

fn share(text: &str) -> Result<Share, String> {
    let (version, share) = text.split_once('=').ok_or("expected VERSION=SHARE, such as 4=10")?;
    match (version.parse(), share.parse()) {
        (Ok(version), Ok(share)) if version > 0 => Ok(Share::of(version, share)),
        _ => Err("expected VERSION=SHARE in whole numbers, such as 4=10".to_owned()),
    }
}

fn pin(text: &str) -> Result<(String, u64), String> {
    let expected = || "expected KEY=VERSION, such as acme=4".to_owned();
    let (key, version) = text.rsplit_once('=').ok_or_else(expected)?;
    ::registry::check_key(key).map_err(|error| error.to_string())?;
    Ok((key.to_owned(), version.parse().map_err(|_| expected())?))
}

fn print(place: &Place, record: &Record, said: &str) -> Result<(), Failure> {
    if place.json {
        return print_json(record);
    }
    println!("{said}");
    Ok(())
}
