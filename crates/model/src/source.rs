//! The source of the parameters of modules: the one table, by published name.

use std::collections::HashMap;

use minke_spec::{ModelConfig, ParamSpec, Placement, parameters};
use minke_tensor::{Param, Weight};

/// Parameters that wait to be taken by the modules they belong to.
pub(crate) struct ParamSource {
    waiting: HashMap<String, Param>,
}

impl ParamSource {
    /// The parameters of the table that a rank holds, with values from `value`, in the order of the table.
    pub(crate) fn new<W: Into<Weight>, E>(
        config: &ModelConfig,
        placement: &Placement,
        mut value: impl FnMut(&ParamSpec, &[usize]) -> Result<W, E>,
    ) -> Result<Self, E> {
        let specs = parameters(config);
        let mut waiting = HashMap::with_capacity(specs.len());
        for (id, spec) in specs.iter().enumerate().filter(|(_, spec)| placement.holds(config, spec)) {
            let shape = spec.local_shape(placement);
            waiting.insert(spec.name.clone(), Param::new(&spec.name, id, value(spec, &shape)?));
        }
        Ok(Self { waiting })
    }

    /// A parameter that the table has.
    pub(crate) fn take(&mut self, name: &str) -> Param {
        self.take_if_any(name).unwrap_or_else(|| panic!("invariant: the table of parameters has {name}"))
    }

    /// A parameter if the table has it.
    pub(crate) fn take_if_any(&mut self, name: &str) -> Option<Param> {
        self.waiting.remove(name)
    }

    /// The names that were not taken.
    pub(crate) fn left_over(&self) -> Vec<&str> {
        self.waiting.keys().map(String::as_str).collect()
    }
}

/// Implements `params` and `params_mut` for a module from the list of its fields.
macro_rules! params {
    ($module:ident { $($field:ident),* $(,)? }) => {
        impl $crate::source::HasParams for $module {
            fn params<'a>(&'a self, to: &mut Vec<&'a minke_tensor::Param>) {
                $($crate::source::HasParams::params(&self.$field, to);)*
            }
            fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut minke_tensor::Param>) {
                $($crate::source::HasParams::params_mut(&mut self.$field, to);)*
            }
        }
    };
}
pub(crate) use params;

/// Something that holds parameters.
pub(crate) trait HasParams {
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>);
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>);
}

impl HasParams for Param {
    /// With those of its adapter, if it has one.
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>) {
        to.push(self);
        to.extend(self.adapter().into_iter().flat_map(|adapter| [adapter.a(), adapter.b()]));
    }
    /// Those of its adapter, if it has one: a matrix beside which one stands is never changed.
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>) {
        match self.adapter().is_some() {
            true => to.extend(self.adapter_mut().into_iter().flatten()),
            false => to.push(self),
        }
    }
}

impl<T: HasParams> HasParams for Option<T> {
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>) {
        self.iter().for_each(|item| item.params(to));
    }
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>) {
        self.iter_mut().for_each(|item| item.params_mut(to));
    }
}

impl<T: HasParams> HasParams for Vec<T> {
    fn params<'a>(&'a self, to: &mut Vec<&'a Param>) {
        self.iter().for_each(|item| item.params(to));
    }
    fn params_mut<'a>(&'a mut self, to: &mut Vec<&'a mut Param>) {
        self.iter_mut().for_each(|item| item.params_mut(to));
    }
}
