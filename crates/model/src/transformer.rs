//! The whole model: embedding, blocks, final norm, head, and the module that looks one token further.

use std::sync::Arc;

use minke_spec::draw::{Domain, draw, hash_name};
use minke_spec::{ModelConfig, ParamRole, ParamSpec, Placement, Precision, parameters};
use minke_tensor::{Device, Indices, Param, Pass, Tensor, TokenDistribution, Weight};

use crate::batch::MtpRows;
use crate::block::Block;
use crate::cache::KvCache;
use crate::moe::{ExpertLoad, Routed};
use crate::mtp::Mtp;
use crate::rope::Rope;
use crate::source::{HasParams, ParamSource, params};
use crate::{Batch, Result};

/// A transformer with its parameters, or a stage of one in a pipeline.
#[derive(Clone)]
pub struct Transformer {
    id: ModelId,
    config: ModelConfig,
    rope: Rope,
    /// Of the first stage, and of the last if that needs it.
    embed_tokens: Option<Param>,
    blocks: Vec<Block>,
    /// Of the last stage.
    norm: Option<Param>,
    /// Of the last stage, unless the embedding is the head.
    lm_head: Option<Param>,
    mtp: Vec<Mtp>,
}

/// Which weights a model has: equal for a model and its clones, another one after every access that may change them.
/// Comparing two is comparing two pointers.
#[derive(Clone, Debug)]
pub struct ModelId(Arc<()>);

impl ModelId {
    fn new() -> Self {
        Self(Arc::new(()))
    }
}

impl PartialEq for ModelId {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ModelId {}

params!(Transformer { embed_tokens, blocks, norm, lm_head, mtp });

/// What one forward gives.
pub struct Output {
    /// State after the final norm, which the head reads. [T, D], or the rows that the batch is asked for
    pub hidden: Tensor,
    /// What the multi-token prediction module gives, if it was asked for.
    pub mtp: Option<MtpOutput>,
    /// Sum over layers of the sequence-wise balance loss, without alpha; in recording passes of models with experts.
    pub balance: Option<Tensor>,
    /// Tokens by expert of every layer with experts; in recording passes.
    pub loads: Vec<ExpertLoad>,
}

/// The states of the multi-token prediction module, for the rows that have two more tokens behind them.
pub struct MtpOutput {
    /// State that the shared head reads: it predicts the token after the next. [R, D]
    pub hidden: Tensor,
    /// That token. `[R]`
    pub target_ids: Indices,
    /// Which rows of the batch these are, on the host. `[R]`
    pub rows: Vec<u32>,
}

impl Transformer {
    /// A model with random weights: normal with the configured deviation, norms 1, biases 0.
    ///
    /// # Paper
    /// - V3 4.2 (initialisation)
    ///
    /// # Errors
    /// If a shape cannot be shared out as `placement` says.
    pub fn random(device: &Device, config: &ModelConfig, placement: &Placement, seed: u64) -> Result<Self> {
        Self::new(config, placement, |spec, shape| {
            let values = initial(config, spec, seed);
            Ok(Tensor::from_slice(device, shape, &values[spec.local_elements(placement)]))
        })
    }

    /// The part of a whole model that one rank holds, its weights in F32.
    ///
    /// # Panics
    /// If a weight stays as it lies in a file, or the model is not whole.
    pub fn part(&self, device: &Device, placement: &Placement) -> Self {
        let params = self.params();
        let part = Self::new(&self.config, placement, |spec, shape| {
            let whole = params.iter().find(|param| param.name() == spec.name);
            let values = whole.expect("invariant: the whole model has every row of the table").value().read();
            Ok::<_, std::convert::Infallible>(Tensor::from_slice(
                device,
                shape,
                &values[spec.local_elements(placement)],
            ))
        });
        part.expect("invariant: nothing fails")
    }

    /// A model whose weights are given by `value(spec, local shape)`, called in the order of the table.
    ///
    /// # Errors
    /// If `value` fails.
    pub fn new<W: Into<Weight>, E>(
        config: &ModelConfig,
        placement: &Placement,
        value: impl FnMut(&ParamSpec, &[usize]) -> std::result::Result<W, E>,
    ) -> std::result::Result<Self, E> {
        let mut source = ParamSource::new(config, placement, value)?;
        let layers = config.num_hidden_layers;
        let model = Self {
            id: ModelId::new(),
            rope: Rope::new(config),
            embed_tokens: source.take_if_any("model.embed_tokens.weight"),
            blocks: placement.layers(layers).map(|layer| Block::new(config, &mut source, layer)).collect(),
            norm: source.take_if_any("model.norm.weight"),
            lm_head: source.take_if_any("lm_head.weight"),
            mtp: (0..config.num_nextn_predict_layers)
                .filter(|_| placement.is_last())
                .map(|i| Mtp::new(config, &mut source, layers + i))
                .collect(),
            config: config.clone(),
        };
        debug_assert!(source.left_over().is_empty(), "nobody took {:?}", source.left_over());
        Ok(model)
    }

    /// The configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// All parameters in the order of the table; behind them those of adapters.
    pub fn params(&self) -> Vec<&Param> {
        let mut all = Vec::new();
        HasParams::params(self, &mut all);
        all.sort_by_key(|param| param.id());
        all
    }

    /// The same model in a precision: under `Bf16` weights are rounded, those of adapters too, but not those of norms and gates,
    /// biases, and what stays as it lies in a file.
    #[must_use]
    pub fn with_precision(mut self, device: &Device, precision: Precision) -> Self {
        let roles: Vec<ParamRole> = parameters(&self.config).iter().map(|spec| spec.role).collect();
        let is_rounded = |param: &&mut Param| roles.get(param.id()).is_none_or(|role| role.is_rounded());
        for param in self.params_mut().into_iter().filter(is_rounded) {
            param.hold_as(device, precision);
        }
        self
    }

    /// Which weights these are.
    pub fn id(&self) -> &ModelId {
        &self.id
    }

    /// All parameters in the order of the table, for an update: the model has another [`id`](Self::id) then. Behind them those of
    /// adapters; a matrix that has one is left out.
    pub fn params_mut(&mut self) -> Vec<&mut Param> {
        self.id = ModelId::new();
        let mut all = Vec::new();
        HasParams::params_mut(self, &mut all);
        all.sort_by_key(|param| param.id());
        all
    }

    /// Computes the states that the head reads. With a cache, keys and values go through its pages; with `mtp` (batches
    /// of whole sequences only), the multi-token prediction module runs as well.
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn forward(&self, pass: Pass<'_>, batch: &Batch, cache: Option<&mut KvCache>, mtp: bool) -> Result<Output> {
        self.forward_behind(pass, batch, None, cache, mtp)
    }

    /// [`forward`](Self::forward) of the last stage of a pipeline, behind what the stage before it handed on.
    ///
    /// # Shapes
    /// x [T, D], unless there is no stage before
    pub(crate) fn forward_behind(
        &self,
        pass: Pass<'_>,
        batch: &Batch,
        x: Option<&Tensor>,
        cache: Option<&mut KvCache>,
        mtp: bool,
    ) -> Result<Output> {
        let (x, mut routed) = self.through_blocks(pass, batch, x, cache)?;
        let norm = self.norm.as_ref().expect("invariant: the last stage has the final norm");
        let hidden = x.rms_norm(pass, norm, self.config.rms_norm_eps)?;
        let mut mtp_output = None;
        if let Some(module) = self.mtp.first().filter(|_| mtp) {
            let MtpRows { batch, rows, next_ids, target_ids } = batch.mtp_rows(pass.device);
            let cos_sin = self.rope.cos_sin(pass, batch.positions());
            let states = hidden.gather_rows(pass, &Indices::from_slice(pass.device, &rows))?;
            let next = Tensor::embed(pass, self.embedding(), &next_ids)?;
            let (hidden, of_layer) = module.forward(pass, &states, &next, &batch, &cos_sin, None)?;
            routed.extend(of_layer);
            mtp_output = Some(MtpOutput { hidden, target_ids, rows });
        }
        let (balance, loads) = reports(pass, &routed)?;
        Ok(Output { hidden, mtp: mtp_output, balance, loads })
    }

    /// Computes what a stage of a pipeline hands on to the next, behind what the one before it did. For all but the last stage.
    ///
    /// # Shapes
    /// x [T, D], unless there is no stage before; [`Output::hidden`] [T, D] is what is handed on, in front of any norm
    ///
    /// # Errors
    /// If the batch does not fit the model.
    pub fn forward_stage(&self, pass: Pass<'_>, batch: &Batch, x: Option<&Tensor>) -> Result<Output> {
        let (hidden, routed) = self.through_blocks(pass, batch, x, None)?;
        let (balance, loads) = reports(pass, &routed)?;
        Ok(Output { hidden, mtp: None, balance, loads })
    }

    /// What the blocks make of states, or of tokens where no stage is before them.
    fn through_blocks(
        &self,
        pass: Pass<'_>,
        batch: &Batch,
        x: Option<&Tensor>,
        mut cache: Option<&mut KvCache>,
    ) -> Result<(Tensor, Vec<Routed>)> {
        let cos_sin = self.rope.cos_sin(pass, batch.positions());
        let mut routed = Vec::new();
        let mut x = match x {
            Some(x) => x.clone(),
            None => Tensor::embed(pass, self.embedding(), batch.token_ids())?,
        };
        for block in &self.blocks {
            let is_last = block.layer() + 1 == self.config.num_hidden_layers;
            let asked = batch.asked().filter(|_| is_last);
            let (y, of_layer) = block.forward(pass, &x, batch, asked, &cos_sin, cache.as_deref_mut())?;
            routed.extend(of_layer);
            x = y;
        }
        Ok((x, routed))
    }

    /// Runs the multi-token prediction module alone, behind a forward: the states from which the head predicts one token
    /// further. Row i of the batch is the token behind the one whose state is row `rows[i]` of `hidden`, and goes to the
    /// layer that [`KvCache::with_mtp`] added. Only differences of positions count.
    ///
    /// # Shapes
    /// hidden [T, D] ([`Output::hidden`]), rows `[R]`, batch of R rows -> [R, D]
    ///
    /// # Paper
    /// - V3 2.2 (the module can serve as a draft model); V3 5.4.3 (second token accepted in 85 to 90 of 100 cases)
    /// - Test: crates/engine/tests/drafts_change_nothing_but_time.rs
    ///
    /// # Errors
    /// If the batch does not fit the model.
    ///
    /// # Panics
    /// If the configuration has no multi-token prediction, or the cache has no layer for it.
    pub fn forward_mtp(
        &self,
        pass: Pass<'_>,
        hidden: &Tensor,
        rows: &Indices,
        batch: &Batch,
        cache: &mut KvCache,
    ) -> Result<Tensor> {
        let module = self.mtp.first().expect("a model with multi-token prediction");
        let cos_sin = self.rope.cos_sin(pass, batch.positions());
        let states = hidden.gather_rows(pass, rows)?;
        let next = Tensor::embed(pass, self.embedding(), batch.token_ids())?;
        let (hidden, _) = module.forward(pass, &states, &next, batch, &cos_sin, Some(cache))?;
        Ok(hidden)
    }

    fn embedding(&self) -> &Param {
        self.embed_tokens.as_ref().expect("invariant: the stages that look tokens up have the embedding")
    }

    /// The head: the embedding if they are tied.
    fn head(&self) -> &Param {
        self.lm_head.as_ref().unwrap_or_else(|| self.embedding())
    }

    /// The logits of states.
    ///
    /// # Shapes
    /// hidden [R, D] -> [R, W]
    ///
    /// # Errors
    /// If the width is another.
    pub fn logits(&self, pass: Pass<'_>, hidden: &Tensor) -> Result<Tensor> {
        Ok(hidden.matmul(pass, self.head())?)
    }

    /// Log-probabilities of targets, without holding all logits: equal to the bit to those of the sampler.
    ///
    /// # Shapes
    /// hidden [R, D], targets `[R]` -> `[R]`
    ///
    /// # Errors
    /// If the shapes do not fit.
    pub fn log_probs(
        &self,
        pass: Pass<'_>,
        hidden: &Tensor,
        targets: &Indices,
        inverse_temperature: f32,
    ) -> Result<TokenDistribution> {
        Ok(hidden.head_log_prob(pass, self.head(), targets, inverse_temperature)?)
    }

    /// Moves the selection biases by gamma towards an even load over all given forwards.
    ///
    /// # Paper
    /// - V3 2.1.2 (auxiliary-loss-free balancing)
    pub fn balance_experts(&mut self, device: &Device, loads: &[ExpertLoad], gamma: f32) {
        self.id = ModelId::new();
        let layers = self.config.num_hidden_layers;
        for load in loads {
            let block = match load.layer.checked_sub(layers) {
                None => self.blocks.iter_mut().find(|block| block.layer() == load.layer),
                Some(i) => self.mtp.get_mut(i).map(|module| &mut module.block),
            };
            // The layers of other stages are theirs.
            if let Some(block) = block {
                block.balance(device, load, gamma);
            }
        }
    }
}

/// The balance loss and the loads of layers with experts.
fn reports(pass: Pass<'_>, routed: &[Routed]) -> Result<(Option<Tensor>, Vec<ExpertLoad>)> {
    let mut balance: Option<Tensor> = None;
    for layer in routed {
        balance = Some(match balance {
            Some(sum) => sum.add(pass, &layer.balance)?,
            None => layer.balance.clone(),
        });
    }
    // The host looks at the loads when everything is computed.
    Ok((balance, routed.iter().map(Routed::load).collect()))
}

/// The initial values of a parameter: a function of the seed and the parameter's name.
fn initial(config: &ModelConfig, spec: &ParamSpec, seed: u64) -> Vec<f32> {
    let elements = spec.elements();
    match spec.role {
        ParamRole::Norm => vec![1.0; elements],
        ParamRole::Bias | ParamRole::CorrectionBias => vec![0.0; elements],
        ParamRole::Embedding | ParamRole::Head | ParamRole::Matrix | ParamRole::Experts | ParamRole::Router => {
            let mut stream = draw(seed, Domain::Initialization, &[hash_name(&spec.name)]);
            let deviation = f64::from(config.initializer_range);
            (0..elements).map(|_| (stream.normal() * deviation) as f32).collect()
        }
    }
}
