/** What is shown, as the address says it: a view can be kept, sent and gone back to. */
export interface Place {
  stage: string;
  view: "curves" | "rollouts" | "settings";
  /** The group of rollouts that is read. */
  group: string;
  step: string;
  problem: string;
  verdict: string;
  truncated: string;
  text: string;
  order: string;
}

const EMPTY: Place = {
  stage: "",
  view: "curves",
  group: "",
  step: "",
  problem: "",
  verdict: "",
  truncated: "",
  text: "",
  order: "",
};

export function placeOf(hash: string): Place {
  const given = new URLSearchParams(hash.replace(/^#/, ""));
  const place = { ...EMPTY };
  for (const name of Object.keys(EMPTY) as (keyof Place)[]) {
    const value = given.get(name);
    if (value === null) continue;
    if (name === "view") place.view = value === "rollouts" || value === "settings" ? value : "curves";
    else place[name] = value;
  }
  return place;
}

export function hashOf(place: Place): string {
  const given = Object.entries(place).filter(([name, value]) => value !== EMPTY[name as keyof Place]);
  return `#${new URLSearchParams(given as [string, string][])}`;
}
