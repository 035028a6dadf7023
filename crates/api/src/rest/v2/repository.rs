//! The model repository extension over REST.

use base64::Engine;
use bytes::Bytes;
use hyper::Response;
use serde_json::json;
use serving::Error;

use super::super::json::{self, NonFinite, Reader};
use super::super::json_response;
use crate::error::Failure;
use crate::repository::{self, Parameter};
use crate::server::Body;
use crate::{Api, Load};

/// Every model that is known and its state; only the ready ones if the request says so.
pub(super) fn index(api: &Api, body: &Bytes) -> Result<Response<Body>, Failure> {
    let mut only_ready = false;
    read_object(body, |reader, key| match key {
        "ready" => reader.boolean().map(|ready| only_ready = ready),
        _ => reader.skip().map(drop),
    })?;
    Ok(json_response(&json!(repository::index(api, only_ready))))
}

/// Loads or reloads a model, with the settings and files that the request gives.
pub(super) async fn load(api: &Api, name: &str, body: &Bytes) -> Result<Response<Body>, Failure> {
    let mut load = Load::default();
    let mut refusal = None;
    read_parameters(body, |reader, key| {
        let parameter = parameter(reader, key)?;
        if let Err(error) = repository::add_parameter(&mut load, key, parameter) {
            refusal.get_or_insert(error);
        }
        Ok(())
    })?;
    settle(refusal)?;
    repository::load(api, name, load).await?;
    Ok(json_response(&json!({})))
}

/// Unloads all versions of a model.
pub(super) async fn unload(api: &Api, name: &str, body: &Bytes) -> Result<Response<Body>, Failure> {
    let mut refusal = None;
    read_parameters(body, |reader, key| {
        if let Err(error) = repository::check_unload_parameter(key) {
            refusal.get_or_insert(error);
        }
        reader.skip().map(drop)
    })?;
    settle(refusal)?;
    repository::unload(api, name).await?;
    Ok(json_response(&json!({})))
}

fn settle(refusal: Option<Error>) -> Result<(), Failure> {
    refusal.map_or(Ok(()), |error| Err(error.into()))
}

/// A parameter of a load request; files come as base64.
fn parameter(reader: &mut Reader<'_>, key: &str) -> Result<Parameter, json::Error> {
    if reader.peek() != Some(b'"') {
        return reader.skip().map(|_| Parameter::Other);
    }
    let text = reader.string()?;
    if !key.starts_with("file:") {
        return Ok(Parameter::Text(text.into()));
    }
    match base64::engine::general_purpose::STANDARD.decode(&*text) {
        Ok(contents) => Ok(Parameter::Contents(contents.into())),
        Err(error) => Err(reader.error(format!("{key:?} is not base64: {error}"))),
    }
}

/// Reads the parameters of a request to the repository.
fn read_parameters(
    body: &Bytes,
    mut member: impl FnMut(&mut Reader<'_>, &str) -> Result<(), json::Error>,
) -> Result<(), Failure> {
    read_object(body, |reader, key| match key {
        "parameters" => reader.object(&mut member),
        _ => reader.skip().map(drop),
    })
}

/// Reads a body that may be empty, or an object.
fn read_object(
    body: &Bytes,
    member: impl FnMut(&mut Reader<'_>, &str) -> Result<(), json::Error>,
) -> Result<(), Failure> {
    let mut reader = Reader::new(body, NonFinite::Refused);
    if reader.peek().is_none() {
        return Ok(());
    }
    let result = reader.object(member).and_then(|()| reader.end());
    result.map_err(|error| Failure::invalid(error.to_string()))
}
