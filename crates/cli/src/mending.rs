//! Finding what is wrong in the stores, and mending it through their trashes.

use anyhow::{Context as _, Result};
use mlxman_clean::filter::FilterSet;
use mlxman_clean::{Applied, AppliedStore, Plan, Policies, Repairs, RepairsAsked, Trash, Watched, mend};
use mlxman_store::{DirHandle, StoreKind, StoreSpec, resolve};

use crate::context::Context;
use crate::planning::plan;
use crate::trash::{freely, recover_in, will_change};

/// What was found, and the plan of what a preview would remove.
pub(crate) struct Found {
    pub(crate) repairs: Repairs,
    removals: Plan,
}

/// Looks at the stores; nothing is touched.
pub(crate) fn find(context: &Context, stores: &[StoreSpec]) -> Result<Found> {
    let removals = plan(context, (&FilterSet::default(), &Policies::default()), stores, None)?.plan;
    let survey = context.registry.survey(stores, &context.catalog()?, &context.looking())?;
    let (hub, _) = context.places.hub_cache();
    let default = StoreSpec::verbatim(StoreKind::Hub, std::path::absolute(hub)?);
    let default = resolve(vec![default], context.store_limit).pop().map(|found| found.spec.root().to_owned());
    let asked = RepairsAsked { removals: &removals, default_hub: default.as_ref(), now: context.now };
    Ok(Found { repairs: Repairs::of(&survey, asked), removals })
}

/// Mends store by store; gives whether anything went wrong beside single repairs.
pub(crate) fn carry_out(
    context: &Context,
    found: &Found,
    stores: &[StoreSpec],
    applied: &mut Applied,
) -> Result<bool> {
    let mut went_wrong = false;
    for spec in stores {
        let id = spec.id();
        if !found.repairs.mendable().any(|(finding, _)| finding.store == id) {
            continue;
        }
        // One store that cannot be mended keeps none of the others from it.
        match mend_one(context, found, spec) {
            Ok(store) => applied.add(store),
            Err(error) => {
                context.printer.warning(&format!("{spec}: {error:#}"));
                applied.add(AppliedStore::of(id));
                went_wrong = true;
            }
        }
    }
    Ok(went_wrong)
}

fn mend_one(context: &Context, found: &Found, spec: &StoreSpec) -> Result<AppliedStore> {
    let id = spec.id();
    let root = DirHandle::open_root(spec.root()).with_context(|| {
        format!("the store {} cannot be opened; is its volume mounted?", spec.root().display())
    })?;
    let waiting = || {
        context.printer.status(&format!("another mlxman changes {spec} just now; waiting for it"));
    };
    let trash = Trash::open(spec, &root, Some(&waiting), &freely)?;
    recover_in(context, &trash);
    will_change(context, std::slice::from_ref(spec));
    let watched = Watched::of(&found.removals, &id, &root, chrono::Utc::now());
    // Found again under the lock: whatever may keep a repair from being done is asked again.
    let fresh = find(context, std::slice::from_ref(spec))?.repairs;
    Ok(mend(&trash, &id, (&found.repairs, &fresh), &watched, &context.run)?)
}
