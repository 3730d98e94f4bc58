import { useState } from "preact/hooks";
import type { App } from "../app";
import type { Settings } from "../model";
import { Dialog } from "./dialog";
import { ThemeSelect } from "./theme";

type NumberName = "temperature" | "top_p" | "top_k" | "min_p" | "seed" | "max_tokens" | "budget";

interface Field {
  name: NumberName;
  label: string;
  hint: string;
  min: number;
  max: number;
  step: number | "any";
}

const SAMPLING: readonly Field[] = [
  { name: "temperature", label: "Temperature", hint: "0 to 2", min: 0, max: 2, step: "any" },
  { name: "top_p", label: "Top-p", hint: "0 to 1", min: 0, max: 1, step: "any" },
  { name: "top_k", label: "Top-k", hint: "whole number", min: 0, max: 1_000_000, step: 1 },
  { name: "min_p", label: "Min-p", hint: "0 to 1", min: 0, max: 1, step: "any" },
  { name: "seed", label: "Seed", hint: "whole number", min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
  { name: "max_tokens", label: "Max tokens", hint: "in all", min: 1, max: 10_000_000, step: 1 },
];

const BUDGET: Field = {
  name: "budget",
  label: "Thinking budget",
  hint: "tokens",
  min: 0,
  max: 10_000_000,
  step: 1,
};

export function SettingsDrawer({ app, close }: { app: App; close(): void }) {
  const settings = app.settings();
  const change = (fields: { [K in keyof Settings]: Settings[K] | undefined }) => {
    // Read anew: what was typed a moment ago may not be drawn yet.
    const next = { ...app.settings(), ...fields } as Settings;
    for (const name of Object.keys(next) as (keyof Settings)[]) if (next[name] === undefined) delete next[name];
    void app.setSettings(next);
  };
  const thinking = app.modelInUse()?.thinking ?? "optional";
  const numberField = (field: Field) => (
    <NumberField
      key={field.name}
      field={field}
      value={settings[field.name]}
      change={(value) => change({ [field.name]: value })}
    />
  );
  return (
    <Dialog class="drawer" label="Settings" close={close}>
      <div class="drawer-head">
        <h2>Settings</h2>
        <button type="button" class="quiet" onClick={close}>
          Close
        </button>
      </div>
      <p class="hint">They hold for this conversation. What is left empty is the server's choice.</p>
      <label class="field-wide">
        System prompt
        <textarea
          name="system"
          rows={4}
          defaultValue={settings.system ?? ""}
          onChange={(event) => change({ system: event.currentTarget.value.trim() || undefined })}
        />
      </label>
      <fieldset>
        <legend>Sampling</legend>
        {SAMPLING.map(numberField)}
      </fieldset>
      <fieldset>
        <legend>Thinking</legend>
        {thinking === "optional" && (
          <label class="field">
            <span>Thinking</span>
            <select
              name="thinking"
              value={settings.thinking === undefined ? "" : String(settings.thinking)}
              onChange={(event) => {
                const { value } = event.currentTarget;
                change({ thinking: value === "" ? undefined : value === "true" });
              }}
            >
              <option value="">default</option>
              <option value="true">on</option>
              <option value="false">off</option>
            </select>
          </label>
        )}
        {thinking === "none" ? <p class="hint">This model does not think.</p> : numberField(BUDGET)}
        {thinking === "always" && <p class="hint">This model always thinks.</p>}
      </fieldset>
      <fieldset>
        <legend>Appearance</legend>
        <label class="field">
          <span>Theme</span>
          <ThemeSelect />
        </label>
      </fieldset>
    </Dialog>
  );
}

function NumberField(props: { field: Field; value: number | undefined; change(value: number | undefined): void }) {
  const { field, value, change } = props;
  const [wrong, setWrong] = useState(false);
  return (
    <label class="field">
      <span>
        {field.label} <small>{field.hint}</small>
      </span>
      <input
        name={field.name}
        type="number"
        inputMode={field.step === 1 ? "numeric" : "decimal"}
        min={field.min}
        max={field.max}
        step={field.step}
        placeholder="default"
        defaultValue={value === undefined ? "" : String(value)}
        aria-invalid={wrong}
        onInput={(event) => {
          const input = event.currentTarget;
          const valid = input.validity.valid;
          setWrong(!valid);
          if (valid) change(input.value === "" ? undefined : input.valueAsNumber);
        }}
      />
    </label>
  );
}
