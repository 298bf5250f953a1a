//! Pods on volumes.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use super::{Access, gone, make, timed};
use crate::cluster::node::IMAGE;
use crate::cluster::{Cluster, PATIENCE};
use crate::driver::Volume;
use crate::rig::eventually;

/// A pod to be: one container that does nothing by itself, and a claim's volume.
#[derive(Debug, Clone)]
pub struct PodPlan {
    name: String,
    claim: String,
    access: Access,
    /// Where it is to be, and what else its specification says.
    spec: Value,
    metadata: Value,
}

impl PodPlan {
    /// A pod wherever the scheduler puts it.
    pub fn new(name: &str, claim: &str, access: Access) -> Self {
        Self {
            name: name.into(),
            claim: claim.into(),
            access,
            spec: json!({}),
            metadata: json!({ "name": name }),
        }
    }

    /// The scheduler is to put it on this node.
    #[must_use]
    pub fn on(mut self, node: &str) -> Self {
        self.spec["nodeSelector"] = json!({ "kubernetes.io/hostname": node });
        self
    }

    /// It is on this node, and nobody asks the scheduler.
    #[must_use]
    pub fn bound_to(mut self, node: &str) -> Self {
        self.spec["nodeName"] = node.into();
        self
    }

    /// With this label.
    #[must_use]
    pub fn labelled(mut self, key: &str, value: &str) -> Self {
        self.metadata["labels"][key] = value.into();
        self
    }

    /// It has ended once its container has, as a virtual machine's pod has.
    #[must_use]
    pub fn never_started_again(mut self) -> Self {
        self.spec["restartPolicy"] = "Never".into();
        self
    }

    /// It belongs to the pod of that name and uid, and goes with it.
    #[must_use]
    pub fn owned_by(mut self, name: &str, uid: &str) -> Self {
        self.metadata["ownerReferences"] =
            json!([{ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": true }]);
        self
    }

    fn template(&self) -> Value {
        let mut container = json!({
            "name": "main",
            "image": IMAGE,
            "imagePullPolicy": "Never",
            // PID 1 hears of no signal that it does not ask for.
            "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 2147483647 & wait"],
        });
        let (uses, volume) = self.access.use_of("volume");
        container[uses] = volume;
        let mut spec = json!({
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "terminationGracePeriodSeconds": 5,
            "containers": [container],
            "volumes": [{ "name": "volume", "persistentVolumeClaim": { "claimName": self.claim } }],
        });
        for (key, value) in self.spec.as_object().into_iter().flatten() {
            spec[key] = value.clone();
        }
        json!({ "metadata": self.metadata, "spec": spec })
    }
}

impl Cluster {
    /// Makes a pod on a node that uses the claim of that name, and waits until it runs.
    pub async fn start_pod(&self, name: &str, node: &str, claim: &str, volume: &Volume) -> Result<()> {
        self.run_pod(&PodPlan::new(name, claim, Access::of(&volume.capability)).bound_to(node)).await
    }

    /// Makes a pod.
    pub async fn make_pod(&self, pod: &PodPlan) -> Result<()> {
        make(&self.pods(), pod.template()).await
    }

    /// Makes a pod, and waits until it runs.
    pub async fn run_pod(&self, pod: &PodPlan) -> Result<()> {
        self.make_pod(pod).await?;
        timed(&format!("pod {} runs", pod.name), self.pod_runs(&pod.name)).await
    }

    /// Makes a set of one such pod, which is started anew, elsewhere if need be, once it is gone for certain; it is called `NAME-0`.
    pub async fn make_set(&self, pod: &PodPlan) -> Result<()> {
        let labels = BTreeMap::from([("set", &pod.name)]);
        let mut template = pod.template();
        template["metadata"] = json!({ "labels": labels });
        let set = json!({
            "metadata": { "name": pod.name },
            "spec": {
                "serviceName": pod.name,
                "replicas": 1,
                "selector": { "matchLabels": labels },
                "template": template,
            },
        });
        make(&self.sets(), set).await
    }

    /// Deletes a set, and waits until its pod is gone.
    pub async fn end_set(&self, name: &str) -> Result<()> {
        gone(&self.sets(), name).await?;
        let of = ListParams::default().labels(&format!("set={name}"));
        let what = format!("the pod of {name} is gone");
        let is_gone = async || Ok(self.pods().list(&of).await?.items.is_empty());
        timed(&what, eventually(&what, PATIENCE, is_gone)).await
    }

    /// Waits until the container of a pod runs.
    pub async fn pod_runs(&self, name: &str) -> Result<()> {
        self.runs(name, 0).await
    }

    /// Waits until the container of a pod has been started once more, and runs.
    pub async fn pod_runs_again(&self, name: &str) -> Result<()> {
        timed(&format!("pod {name} runs again"), self.runs(name, 1)).await
    }

    async fn runs(&self, name: &str, restarts: i32) -> Result<()> {
        let what = format!("pod {name} runs");
        let runs = eventually(&what, PATIENCE, async || {
            let status = self.pods().get_opt(name).await?.and_then(|pod| pod.status).unwrap_or_default();
            let mut containers = status.container_statuses.unwrap_or_default().into_iter();
            Ok(containers.next().is_some_and(|is| is.ready && is.restart_count >= restarts))
        });
        match runs.await {
            Ok(()) => Ok(()),
            Err(error) => Err(error.context(self.events().await)),
        }
    }

    /// Waits until a pod of that name runs on that node; before, it may be another one elsewhere.
    pub async fn pod_runs_on(&self, name: &str, node: &str) -> Result<()> {
        let what = format!("pod {name} is on {node}");
        let there = async || {
            let pod = self.pods().get_opt(name).await?;
            Ok(pod.and_then(|pod| pod.spec?.node_name).is_some_and(|is| is == node))
        };
        timed(&what, eventually(&what, PATIENCE, there)).await?;
        self.pod_runs(name).await
    }

    /// Asks for the end of a pod, and does not wait for it.
    pub async fn ask_to_end(&self, pod: &str) -> Result<()> {
        self.pods().delete(pod, &DeleteParams::default()).await?;
        Ok(())
    }

    /// Waits until a pod is gone.
    pub async fn pod_is_gone(&self, pod: &str) -> Result<()> {
        let what = format!("pod {pod} is gone");
        eventually(&what, PATIENCE, async || Ok(self.pods().get_opt(pod).await?.is_none())).await
    }

    /// What tells a pod from all others, also of the same name.
    pub async fn uid_of(&self, pod: &str) -> Result<String> {
        self.pods().get(pod).await?.metadata.uid.with_context(|| format!("pod {pod} has no uid"))
    }

    /// Deletes a pod, and waits until kubelet has ended it.
    pub async fn end_pod(&self, name: &str) -> Result<()> {
        timed(&format!("pod {name} is gone"), gone(&self.pods(), name)).await
    }

    /// The node that a pod is on.
    pub async fn node_of(&self, pod: &str) -> Result<String> {
        let node = self.pods().get(pod).await?.spec.and_then(|spec| spec.node_name);
        node.with_context(|| format!("pod {pod} is on no node"))
    }

    /// Runs a shell command in the only container of a pod, wherever it is.
    pub async fn exec(&self, pod: &str, script: &str) -> Result<String> {
        self.node(&self.node_of(pod).await?).exec(pod, script).await
    }

    /// How often the container of a pod was started again.
    pub async fn restarts(&self, pod: &str) -> Result<i32> {
        let statuses = self.pods().get(pod).await?.status.and_then(|status| status.container_statuses);
        let first = statuses.and_then(|statuses| statuses.into_iter().next());
        Ok(first.with_context(|| format!("pod {pod} has no container"))?.restart_count)
    }

    fn pods(&self) -> Api<Pod> {
        Api::default_namespaced(self.client())
    }

    fn sets(&self) -> Api<StatefulSet> {
        Api::default_namespaced(self.client())
    }
}
