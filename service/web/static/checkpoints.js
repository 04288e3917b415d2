// The checkpoints there are, as the choices of a select.

import { get } from "./api.js";
import { el } from "./dom.js";

/** Fills the select; the service's default comes first. Returns the bodies of /models. */
export async function fillCheckpoints(select) {
  const { models, default: usual } = await get("/models");
  const groups = models.map((model) =>
    el("optgroup", { label: model.name }, ...choicesOf(model, usual)),
  );
  select.replaceChildren(...groups);
  select.value = usual;
  if (!select.value && select.options.length) select.selectedIndex = 0;
  return models;
}

function choicesOf(model, usual) {
  const aliases = Object.entries(model.aliases).map(([alias, version]) => ({
    value: `${model.name}@${alias}`,
    label: `${model.name}@${alias} (${version})`,
  }));
  const versions = [...model.versions].reverse().map((version) => ({
    value: `${model.name}@${version}`,
    label: `${model.name}@${version}`,
  }));
  if (usual === model.name) aliases.unshift({ value: usual, label: usual });
  return [...aliases, ...versions].map(({ value, label }) => el("option", { value }, label));
}

/** What a checkpoint says of itself: {model, classes, manifest, links}. */
export async function describe(reference) {
  const { model, classes } = await get("/classes", { query: { model: reference } });
  const card = await get(`/models/${model.name}/versions/${model.version}`);
  return { model, classes, manifest: card.manifest, links: card.links };
}
