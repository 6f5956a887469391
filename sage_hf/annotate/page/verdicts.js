// What can be said of a picture as a whole, and in which words.

export const FINISHED = ["done", "nothing", "skipped"];

const SAID = {
  open: "Not begun",
  draft: "Not done yet",
  done: "Done",
  nothing: "Done: nothing matters here",
  skipped: "Skipped",
};

// Why a verdict can't be given yet; empty if it can.
export function missingFor(verdict, { guessed, blank, label }) {
  if (verdict === "done" && guessed) return "Accept the guess (G) or draw first: a guess is nobody's until then.";
  if (verdict === "done" && blank) return "Nothing is marked. Draw something, or say that nothing matters here (X).";
  if (verdict === "nothing" && !blank && !guessed) return "Something is marked. Clear the map first (C).";
  return verdict === "skipped" || label ? "" : "Choose a label first.";
}

export function described(status, source) {
  const model = source.replace(/^(human on )?machine: /, "");
  if (source.startsWith("machine: ")) return `${SAID[status]} · ${model}'s guess, accepted`;
  if (source.startsWith("human on ")) return `${SAID[status]} · drawn on ${model}'s guess`;
  return SAID[status];
}
