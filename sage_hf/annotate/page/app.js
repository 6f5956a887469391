// The page: which picture is shown, what is said about it, and the buttons.

import { Api } from "./api.js";
import { merged, resolve } from "./conflict.js";
import { Drawing } from "./draw.js";
import { keyboardPointer, listen } from "./keys.js";
import { load } from "./load.js";
import { Mask } from "./mask.js";
import { Saver } from "./saver.js";
import { Stage } from "./stage.js";
import { FINISHED, described, missingFor } from "./verdicts.js";
import {
  $, listLabels, message, scaleSlider, showKeys, showTool, toast, wireSlider, wireTools,
} from "./widgets.js";

const api = new Api();
const session = crypto.getRandomValues(new Uint32Array(4)).join("-"); // names this tab, until it is reloaded

let project;
let states = [];
let index = -1;
let state = null; // of the picture, as the server knows it
let mask = null;
let revision = 0;
let label = null;
let status = "draft";
let guessed = false; // the model's guess is shown, and not yet anybody's own
let loading = 0;
let signIn = null; // where nobody is signed in yet

const drawing = new Drawing({
  changed: (box) => stage.paint(mask, box),
  ended: () => {
    const { source } = mask;
    if (mask.commit(source.startsWith("machine: ") ? `human on ${source}` : source)) changed();
  },
  allowed: () => !loading,
});
const stage = new Stage(
  { view: $("view"), layers: $("layers"), picture: $("picture"), map: $("map"), ink: $("ink") },
  drawing,
);
const saver = new Saver(api, {
  work: () => ({
    index,
    base: revision,
    // A guess that nobody has accepted is not saved.
    change: { status, label, note: $("note").value, source: guessed ? "human" : mask.source, session },
    values: guessed || mask.blank ? null : mask.values.slice(),
  }),
  saved: (record, of) => {
    if (of === index) revision = record.revision;
    states[of] = record.status;
    showProgress();
  },
  stale: (latest) => conflict(latest),
  tell: (text, kind) => {
    $("saved").textContent = text;
    $("saved").dataset.kind = kind;
  },
});

// What was drawn or said has changed: it is saved, and a verdict that it no longer fits is taken back.
function changed() {
  if (mask.blank && mask.source !== "human") mask.source = "human";
  if (guessed) guessed = false;
  if ((status === "done" && mask.blank) || (status === "nothing" && !mask.blank) || status === "skipped") {
    status = "draft";
  }
  saver.touch();
  show();
}

// Everything on the page but the picture itself.
function show() {
  stage.colour = guessed ? "guess" : "drawn";
  stage.paint(mask);
  $("undo").disabled = !mask.done.length;
  $("redo").disabled = !mask.undone.length;
  $("guess-bar").hidden = !guessed;
  for (const input of $("label-list").querySelectorAll("input")) input.checked = input.value === label;
  const begun = states[index] !== "open" || saver.dirty;
  $("status").textContent = described(begun ? status : "open", guessed ? "human" : mask.source);
  $("status").dataset.status = status;
}

function showProgress() {
  const finished = states.filter((one) => FINISHED.includes(one)).length;
  $("progress").max = states.length || 1;
  $("progress").value = finished;
  $("progress-text").textContent = `${finished} of ${states.length} finished`;
}

function showLabels() {
  listLabels(project.classes, choose);
  $("new-class").hidden = !project.open_classes;
}

function choose(name) {
  if (loading || !mask || name === label) return;
  label = name;
  saver.touch();
  show();
}

// Opens a picture: what was saved of it, else the map that it has already, else the model's guess.
async function open(number) {
  index = number;
  const mine = ++loading;
  $("number").value = number + 1;
  history.replaceState(null, "", `#${number + 1}`);
  $("view").classList.add("loading");
  try {
    const { found, values } = await load(api, number, $("picture"));
    const { record, size: [width, height] } = found;
    if (mine !== loading) return;
    state = found;
    revision = record?.revision ?? 0;
    status = record && (values || !found.changed) ? record.status : "draft";
    label = record ? record.label : found.given_label;
    states[number] = record?.status ?? "open";
    $("note").value = record?.note ?? "";
    $("file").textContent = found.name;
    $("picture").alt = `${found.name}, picture ${number + 1} of ${states.length}`;
    place(new Mask(width, height, values, (record ?? found).source));
    stage.open(width, height);
    message(found.changed ? "The picture has changed since you annotated it: look at it again." : "");
    if (!record && values) toast("The map that the dataset has is shown. What you do is saved as your own.");
    guessed = false;
    show();
    if (found.guess && !values && (!record || record.status === "draft")) await offerGuess(number, mine);
  } catch (error) {
    if (mine !== loading) return;
    message(`Picture ${number + 1} can't be opened: ${error.message}`);
    mask = drawing.mask = null;
  } finally {
    if (mine === loading) {
      loading = 0;
      $("view").classList.remove("loading");
    }
  }
}

function place(made) {
  mask = drawing.mask = made;
}

async function offerGuess(number, mine) {
  const model = state.guess.replace("machine: ", "");
  message(`${model} is guessing …`);
  try {
    const values = await api.start(number, "guess", mask.values.length);
    if (mine !== loading) return;
    message("");
    if (!values) {
      toast(`${model} marks nothing in this picture.`);
      return;
    }
    place(new Mask(mask.width, mask.height, values, state.guess));
    guessed = true;
    $("guess-text").textContent = `A guess by ${model}, not yours until you accept or edit it.`;
    show();
  } catch (error) {
    message("");
    toast(`No guess: ${error.message}`);
  }
}

// Leaves the picture: nothing is left unsaved behind.
async function go(number) {
  if (number < 0 || number >= states.length || document.querySelector("dialog[open]")) return;
  try {
    await saver.flush();
  } catch (error) {
    if (error.latest) return; // the dialog asks
    toast(`This picture is not saved yet: ${error.message}`);
    return;
  }
  if (number !== index) await open(number);
}

const nextUnfinished = (from) => {
  for (let step = 1; step <= states.length; step++) {
    const number = (from + step) % states.length;
    if (!FINISHED.includes(states[number])) return number;
  }
  return -1;
};

async function finish(verdict) {
  if (loading || !mask) return;
  const missing = missingFor(verdict, { guessed, blank: mask.blank, label });
  if (missing) {
    toast(missing);
    return;
  }
  if (guessed) place(new Mask(mask.width, mask.height));
  guessed = false;
  status = verdict;
  saver.touch();
  show();
  try {
    await saver.flush();
  } catch (error) {
    if (!error.latest) toast(`Not saved: ${error.message}`);
    return;
  }
  const number = nextUnfinished(index);
  if (number >= 0) await open(number);
  else toast(project.exports ? "Every picture is finished. Export them as a dataset." : "Every picture is finished.");
}

async function conflict(latest) {
  saver.tell("Saved elsewhere since", "bad");
  let theirs = null;
  try {
    if (latest.marked) theirs = await api.drawn(index, latest.revision, mask.values.length);
  } catch (error) {
    saver.dirty = true; // the picture is not left, and the next save asks again
    toast(`The other version can't be shown: ${error.message}`);
    return;
  }
  const mine = { values: mask.values, label, note: $("note").value, source: mask.source };
  const chosen = await resolve($("picture"), state.size, mine, { ...latest, values: theirs });
  revision = latest.revision;
  if (chosen === "other") {
    const found = new Mask(mask.width, mask.height, theirs, latest.source);
    place(found);
    ({ label, status } = latest);
    $("note").value = latest.note;
    states[index] = latest.status;
    saver.dirty = false;
    saver.tell("Saved", "good");
    showProgress();
    show();
    return;
  }
  if (chosen === "both") {
    const both = merged(mine, { ...latest, values: theirs });
    mask.begin();
    mask.replace(both.values);
    mask.commit(both.source);
    label = both.label;
    $("note").value = both.note;
  }
  changed();
  saver.flush().catch(() => {});
}

// Another tab may have saved while this one was not looked at.
async function refresh() {
  if (document.hidden || loading || !mask || saver.dirty || saver.running || document.querySelector("dialog[open]")) {
    return;
  }
  try {
    const found = await api.state(index);
    if (!loading && !saver.dirty && (found.record?.revision ?? 0) > revision) {
      await open(index);
      toast("Newer work on this picture, from another tab, is shown.");
    }
    ({ states } = await api.progress());
    showProgress();
  } catch {
    // said when something is to be saved
  }
}

const actions = {
  done: () => finish("done"),
  nothing: () => finish("nothing"),
  skip: () => finish("skipped"),
  next: () => go(index + 1),
  previous: () => go(index - 1),
  unfinished: () => {
    const number = nextUnfinished(index);
    if (number >= 0 && number !== index) go(number);
    else toast("There is no other unfinished picture.");
  },
  undo: () => !loading && mask?.undo() && changed(),
  redo: () => !loading && mask?.redo() && changed(),
  clear: () => {
    if (loading || !mask || mask.blank) return;
    if (guessed) return actions.discard();
    mask.begin();
    mask.replace(new Uint8Array(mask.values.length));
    mask.commit("human");
    changed();
  },
  accept: () => {
    if (!guessed) return;
    changed();
  },
  discard: () => {
    place(new Mask(mask.width, mask.height));
    guessed = false;
    show();
  },
  note: () => $("note").focus(),
  help: () => $("help-dialog").showModal(),
  fit: () => stage.fit(),
  "zoom-in": () => stage.zoom(1.25),
  "zoom-out": () => stage.zoom(0.8),
  smaller: () => scaleSlider("size", 1 / 1.25),
  larger: () => scaleSlider("size", 1.25),
};

function act(name) {
  const [kind, what] = name.split(":");
  if (kind === "tool") {
    drawing.cancel();
    drawing.tool = what;
    showTool(what);
    stage.drawInk();
  } else if (kind === "label") {
    const chosen = project.classes[Number(what) - 1];
    if (chosen !== undefined) choose(chosen);
  } else {
    actions[name]();
  }
}

function wire() {
  for (const name of Object.keys(actions)) {
    const button = $(name);
    if (button instanceof HTMLButtonElement) button.addEventListener("click", () => act(name));
  }
  wireTools((tool) => act(`tool:${tool}`));
  wireSlider("size", "", (value) => {
    drawing.size = value;
    stage.drawInk();
  });
  wireSlider("strength", "%", (value) => (drawing.strength = Math.round(value * 2.55)));
  wireSlider("opacity", "%", (value) => stage.show(value / 100));
  $("note").addEventListener("input", () => mask && saver.touch());
  $("number").addEventListener("change", () => {
    const wanted = Math.round(Number($("number").value)) - 1;
    if (wanted >= 0 && wanted < states.length) go(wanted);
    else $("number").value = index + 1;
    $("view").focus({ preventScroll: true }); // so that the next key is no digit of a number
  });
  $("new-class").addEventListener("submit", async (event) => {
    event.preventDefault();
    const name = $("class-name").value.trim().replace(/\s+/g, " ");
    if (!name) return;
    try {
      project.classes = (await api.addClass(name)).classes;
      $("class-name").value = "";
      showLabels();
      choose(name);
      show();
    } catch (error) {
      toast(error.message);
    }
  });
  $("who").addEventListener("click", () => {
    if (signIn) signIn();
    else if (project.sign_in) location.assign("/oauth/huggingface/logout");
    else askName();
  });
  $("export").addEventListener("click", exportAll);
  stage.onzoom = (scale) => ($("zoom-text").textContent = `${Math.round(scale * 100)}%`);
  listen($("view"), act, keyboardPointer(stage, drawing));
  window.addEventListener("beforeunload", (event) => {
    if (saver.dirty || saver.running) event.preventDefault();
  });
  document.addEventListener("visibilitychange", () => {
    if (document.hidden) saver.flush().catch(() => {});
    else refresh();
  });
  window.addEventListener("focus", refresh);
  $("name-dialog").addEventListener("cancel", () => ($("name").value = api.annotator));
  showKeys();
}

async function exportAll() {
  try {
    await saver.flush();
    $("export").disabled = true;
    toast("Exporting …");
    const report = await api.export();
    toast(`${report.kept} pictures, ${report.annotated} of them with a map, are in ${report.out}.`);
  } catch (error) {
    toast(`Not exported: ${error.message}`);
  } finally {
    $("export").disabled = false;
  }
}

async function askName() {
  try {
    await saver.flush();
  } catch (error) {
    if (!error.latest) toast(`This picture is not saved yet: ${error.message}`);
    return; // it would be saved under the other name
  }
  $("known").replaceChildren(...project.annotators.map((name) => new Option(name, name)));
  $("name").value = api.annotator;
  $("name-dialog").showModal();
  await new Promise((resolve) => $("name-dialog").addEventListener("close", resolve, { once: true }));
  const name = $("name").value.trim();
  if (!name) return askName();
  if (name === api.annotator) return;
  localStorage.setItem("annotator", name);
  await begin(name);
}

// Shows an annotator's own work, from the first picture that is not finished.
async function begin(name) {
  api.annotator = name;
  $("who").textContent = name;
  $("who").hidden = false;
  $("who").title = project.sign_in ? "Sign out" : "Change the name";
  const { states: found, first } = await api.progress();
  states = found;
  $("count").textContent = states.length;
  $("number").max = states.length;
  showProgress();
  await open(first);
  $("view").focus({ preventScroll: true });
}

async function main() {
  wire();
  project = await api.project();
  $("where").textContent = project.where;
  document.title = `${project.where} · Annotate`;
  $("export").hidden = !project.exports;
  showLabels();
  const name = project.sign_in ? project.signed_in : localStorage.getItem("annotator");
  if (project.sign_in && !name) {
    $("who").textContent = "Sign in";
    $("who").hidden = false;
    message("Sign in with Hugging Face, above, to annotate: your maps carry your user name.");
    // Hugging Face can't be signed in to inside of a frame, as which it shows a Space.
    signIn = () => (window.top === window ? location.assign(project.sign_in) : window.open(project.sign_in, "_blank"));
  } else if (name) await begin(name);
  else await askName();
}

main().catch((error) => message(`The page can't begin: ${error.message}`));
