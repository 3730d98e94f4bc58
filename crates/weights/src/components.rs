//! The bytes of a model by component; every tensor of the files belongs to one.

use std::collections::{BTreeMap, HashMap};

use minke_spec::params::{TensorSource, published_tensors};
use minke_spec::{Format, ParamRole, ParamSpec, parameters};

use crate::archive::{Archive, SMALL};

/// What a weight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Component {
    /// The table of tokens, of which a token reads one row; if it is tied, the head too.
    Embedding,
    /// Attention of the main model's layers.
    Attention,
    /// Feed-forwards that every token visits in layers without experts.
    Dense,
    /// Routed experts.
    Experts,
    /// Experts that every token visits.
    SharedExperts,
    /// Gates with their biases, and the norms around attention and feed-forward.
    GateAndNorms,
    /// What turns states into logits.
    Head,
    /// Multi-token prediction, its copies of embedding and head included.
    Mtp,
    /// Tensors that mean nothing to the architecture, and are not read.
    Unread,
}

impl Component {
    /// The name for people and machines.
    pub fn name(self) -> &'static str {
        match self {
            Self::Embedding => "embedding",
            Self::Attention => "attention",
            Self::Dense => "dense_feed_forward",
            Self::Experts => "experts",
            Self::SharedExperts => "shared_experts",
            Self::GateAndNorms => "gate_and_norms",
            Self::Head => "head",
            Self::Mtp => "mtp",
            Self::Unread => "unread",
        }
    }

    fn of(spec: &ParamSpec, num_hidden_layers: usize) -> Self {
        match spec.role {
            _ if spec.layer.is_some_and(|layer| layer >= num_hidden_layers) => Self::Mtp,
            ParamRole::Embedding => Self::Embedding,
            ParamRole::Head => Self::Head,
            ParamRole::Experts => Self::Experts,
            _ if spec.name.contains(".self_attn.") => Self::Attention,
            ParamRole::Matrix if spec.name.contains(".shared_experts.") => Self::SharedExperts,
            ParamRole::Matrix => Self::Dense,
            ParamRole::Norm | ParamRole::Bias | ParamRole::Router | ParamRole::CorrectionBias => Self::GateAndNorms,
        }
    }
}

/// The bytes of one component in one format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ComponentBytes {
    /// In the files.
    pub stored: u64,
    /// Beside them once the model runs: of small weights as f32, and once more packed where they are multiplied.
    pub decoded: u64,
}

impl Archive {
    /// The bytes of every component, by the name of the format.
    pub fn components(&self) -> BTreeMap<(Component, &str), ComponentBytes> {
        let specs = parameters(&self.config);
        let component_of = |spec: &ParamSpec| Component::of(spec, self.config.num_hidden_layers);
        let mut known: HashMap<String, Component> = HashMap::new();
        let mut components: BTreeMap<(Component, &str), ComponentBytes> = BTreeMap::new();
        for spec in &specs {
            let names = self.names(spec);
            let format = names.first().and_then(|name| self.tensors.get(name)?.format());
            if let Some(format) = format.filter(|format| format.block_elements() == 1 && spec.elements() <= SMALL) {
                let copies = if component_of(spec) == Component::Mtp { 1 } else { 2 };
                let bytes = copies * Format::F32.bytes(spec.elements()) as u64;
                components.entry((component_of(spec), format.name())).or_default().decoded += bytes;
            }
            known.extend(names.into_iter().map(|name| (name, component_of(spec))));
        }
        if self.metadata.is_none() {
            let copies =
                published_tensors(&self.config).into_iter().filter(|t| matches!(t.source, TensorSource::CopyOf(_)));
            known.extend(copies.map(|tensor| (tensor.name, Component::Mtp)));
        }
        for (name, entry) in &self.tensors {
            let name = name.strip_suffix("_scale_inv").unwrap_or(name);
            let component = known.get(name).copied().unwrap_or(Component::Unread);
            components.entry((component, &entry.dtype)).or_default().stored += entry.range.len() as u64;
        }
        components
    }
}
