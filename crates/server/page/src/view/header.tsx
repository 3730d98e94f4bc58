import type { RefObject } from "preact";
import type { App } from "../app";
import { contextLength, parameters } from "../format";
import type { Model } from "../model";

interface Props {
  app: App;
  title: string;
  menu: RefObject<HTMLButtonElement>;
  showList(): void;
  showSettings(): void;
}

export function Header({ app, title, menu, showList, showSettings }: Props) {
  const model = app.modelInUse();
  return (
    <header class="header">
      <button type="button" class="quiet only-narrow" ref={menu} onClick={showList} aria-label="Show conversations">
        <svg viewBox="0 0 16 16" width="16" height="16" aria-hidden="true">
          <path d="M1.5 4h13M1.5 8h13M1.5 12h13" fill="none" stroke="currentColor" stroke-width="1.3" />
        </svg>
      </button>
      <h1 class="title">{title}</h1>
      {model !== null && (
        <div class="badge">
          {app.models.length > 1 ? (
            <select
              aria-label="Model"
              value={model.id}
              onChange={(event) => app.chooseModel(event.currentTarget.value)}
            >
              {app.models.map(({ id }) => (
                <option key={id} value={id}>
                  {id}
                </option>
              ))}
            </select>
          ) : (
            <span class="badge-name">{model.id}</span>
          )}
          <span class="badge-facts">{facts(model).join(" · ")}</span>
        </div>
      )}
      <button type="button" class="quiet" onClick={showSettings}>
        Settings
      </button>
    </header>
  );
}

export function facts(model: Model): string[] {
  const known: string[] = [];
  if (model.parameters !== null) known.push(parameters(model.parameters));
  if (model.quantization !== null) known.push(model.quantization);
  if (model.context !== null) known.push(contextLength(model.context));
  return known;
}
