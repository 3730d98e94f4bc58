import { useState } from "preact/hooks";
import { setTheme, theme, THEMES, type Theme } from "../theme";

/** The choice of the colours, which holds for both pages of a browser. */
export function ThemeSelect() {
  const [chosen, setChosen] = useState(theme());
  return (
    <select
      name="theme"
      value={chosen}
      onChange={(event) => {
        const next = event.currentTarget.value as Theme;
        setTheme(next);
        setChosen(next);
      }}
    >
      {THEMES.map((name) => (
        <option key={name} value={name}>
          {name}
        </option>
      ))}
    </select>
  );
}
