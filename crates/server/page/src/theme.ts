const NAME = "minke-theme";

export type Theme = "system" | "light" | "dark";
export const THEMES: readonly Theme[] = ["system", "light", "dark"];

export function theme(): Theme {
  try {
    const kept = localStorage.getItem(NAME) as Theme;
    return THEMES.includes(kept) ? kept : "system";
  } catch {
    return "system";
  }
}

export function setTheme(chosen: Theme): void {
  try {
    localStorage.setItem(NAME, chosen);
  } catch {
    // It holds until the page is left.
  }
  applyTheme(chosen);
}

export function applyTheme(chosen: Theme): void {
  if (chosen === "system") delete document.documentElement.dataset["theme"];
  else document.documentElement.dataset["theme"] = chosen;
}
