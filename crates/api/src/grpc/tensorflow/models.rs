//! `tensorflow.serving.ModelService`: what state versions are in, and which are wanted.

use std::sync::Arc;

use model::ErrorCode;
use serving::{Error, State};
use tonic::{Request, Response, Status};

use super::named;
use crate::error::grpc_code;
use crate::grpc::of_error;
use crate::proto::tensorflow::serving as pb;
use crate::proto::tensorflow::serving::model_server_config::Config;
use crate::proto::tensorflow::serving::model_service_server::ModelService;
use crate::proto::tensorflow::serving::model_version_status::State as Code;
use crate::refusals::invalid;
use crate::tensorflow::states;
use crate::{Api, Load};

pub(crate) struct Models {
    api: Arc<Api>,
}

impl Models {
    pub(crate) fn new(api: Arc<Api>) -> Self {
        Self { api }
    }
}

#[tonic::async_trait]
impl ModelService for Models {
    async fn get_model_status(
        &self,
        request: Request<pb::GetModelStatusRequest>,
    ) -> Result<Response<pb::GetModelStatusResponse>, Status> {
        let spec = request.into_inner().model_spec;
        let (spec, choice) = named(spec.as_ref()).map_err(of_error)?;
        let states = states(&self.api.serving, &spec.name, &choice).map_err(of_error)?;
        let version = |of: serving::Status| version_status(&of.version, of.state);
        let versions = states.into_iter().map(version).collect();
        Ok(Response::new(pb::GetModelStatusResponse { model_version_status: versions }))
    }

    async fn handle_reload_config_request(
        &self,
        request: Request<pb::ReloadConfigRequest>,
    ) -> Result<Response<pb::ReloadConfigResponse>, Status> {
        let wanted = wanted(request.into_inner()).map_err(of_error)?;
        reload(&self.api, &wanted).await.map_err(of_error)?;
        let status = pb::StatusProto::default();
        Ok(Response::new(pb::ReloadConfigResponse { status: Some(status), metric: Vec::new() }))
    }
}

fn version_status(version: &str, state: State) -> pb::ModelVersionStatus {
    let (state, failure) = match state {
        State::Loading => (Code::Loading, None),
        State::Ready | State::OnDemand => (Code::Available, None),
        State::Unloading => (Code::Unloading, None),
        State::Unavailable(failure) => (Code::End, failure),
    };
    let mut status = pb::StatusProto::default();
    if let Some(failure) = failure {
        status.error_code = grpc_code(ErrorCode::Unavailable) as i32;
        status.error_message = failure;
    }
    // The protocol knows numbers only; what another version is called goes where it can be read.
    let version = version.parse().unwrap_or_else(|_| {
        let text = format!("version \"{version}\"");
        status.error_message = match &*status.error_message {
            "" => text,
            failure => format!("{text}: {failure}"),
        };
        0
    });
    pb::ModelVersionStatus { version, state: state.into(), status: Some(status) }
}

/// The names of the models that a configuration wants, if it wants nothing else.
fn wanted(request: pb::ReloadConfigRequest) -> Result<Vec<String>, Error> {
    let unsupported = |what: String| {
        let advice = "this server finds models by name in its own repository";
        Error::new(ErrorCode::Unimplemented, format!("{what} is not supported: {advice}"))
    };
    if !request.metric_names.is_empty() {
        return Err(unsupported("metric_names".into()));
    }
    let list = match request.config.and_then(|config| config.config) {
        Some(Config::ModelConfigList(list)) => list,
        Some(Config::CustomModelConfig(_)) => {
            return Err(unsupported("custom_model_config".into()));
        }
        None => return Err(invalid("config has no model_config_list")),
    };
    let mut names = Vec::with_capacity(list.config.len());
    for model in list.config {
        let name = model.name;
        if name.is_empty() {
            return Err(invalid("a model of the list has no name"));
        }
        if names.contains(&name) {
            return Err(invalid(format!("model '{name}' is in the list twice")));
        }
        if !model.base_path.is_empty() {
            return Err(unsupported(format!("base_path of model '{name}'")));
        }
        if model.model_version_policy.is_some_and(|policy| policy.policy_choice.is_some()) {
            return Err(unsupported(format!("model_version_policy of model '{name}'")));
        }
        if !model.version_labels.is_empty() {
            return Err(unsupported(format!("version_labels of model '{name}'")));
        }
        names.push(name);
    }
    Ok(names)
}

/// Loads what is wanted and not loaded, then unloads what is loaded and not wanted; stops at the
/// first failure, so that nothing is unloaded for a model that cannot take its place.
async fn reload(api: &Api, wanted: &[String]) -> Result<(), Error> {
    let mut loaded: Vec<_> = api.serving.status().into_iter().collect();
    loaded.retain(|status| !matches!(status.state, State::Unavailable(_)));
    let failed = |(code, message): (ErrorCode, String)| Error::new(code, message);
    for name in wanted {
        if !loaded.iter().any(|status| *status.name == **name) {
            api.control.load(name, Load::default()).await.map_err(failed)?;
        }
    }
    let mut surplus: Vec<_> = loaded.into_iter().map(|status| status.name).collect();
    surplus.sort_unstable();
    surplus.dedup();
    for name in surplus {
        if !wanted.iter().any(|wanted| **wanted == *name) {
            api.control.unload(&name).await.map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(models: &[pb::ModelConfig]) -> pb::ReloadConfigRequest {
        let list = pb::ModelConfigList { config: models.to_vec() };
        let config = pb::ModelServerConfig { config: Some(Config::ModelConfigList(list)) };
        pb::ReloadConfigRequest { config: Some(config), metric_names: Vec::new() }
    }

    #[test]
    fn a_configuration_is_taken_as_names_or_refused() {
        let model = |name: &str| pb::ModelConfig { name: name.into(), ..Default::default() };
        assert_eq!(wanted(request(&[model("a"), model("b")])).unwrap(), ["a", "b"]);
        let elsewhere = pb::ModelConfig { base_path: "/models/a".into(), ..model("a") };
        let error = wanted(request(&[elsewhere])).unwrap_err();
        assert_eq!(error.code(), ErrorCode::Unimplemented);
        assert!(error.to_string().starts_with("base_path of model 'a' is not supported"));
        assert!(wanted(request(&[model("a"), model("a")])).is_err());
        assert!(wanted(pb::ReloadConfigRequest::default()).is_err());
    }

    #[test]
    fn a_version_without_a_number_is_told_in_words() {
        let failed = State::Unavailable(Some("no such file".into()));
        let status = version_status("v10", failed);
        assert_eq!((status.version, status.state), (0, 50));
        let status = status.status.unwrap();
        assert_eq!(status.error_message, "version \"v10\": no such file");
    }
}
