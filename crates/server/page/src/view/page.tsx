import { useEffect, useLayoutEffect, useReducer, useRef, useState } from "preact/hooks";
import type { App } from "../app";
import { Composer } from "./composer";
import { Conversation } from "./conversation";
import { Header } from "./header";
import { KeyQuestion } from "./key";
import { SettingsDrawer } from "./settings";
import { Sidebar } from "./sidebar";

/** As in the style sheet. */
const NARROW = "(max-width: 50rem)";

function editable(target: EventTarget | null): boolean {
  return target instanceof HTMLElement && target.matches("input, textarea, select, [contenteditable]");
}

export function Page({ app }: { app: App }) {
  const [, redraw] = useReducer<number, void>((n) => n + 1, 0);
  const [drawer, setDrawer] = useState(false);
  /** On narrow screens the list lies over the page and is shown on demand. */
  const [list, setList] = useState<"hidden" | "shown" | "search">("hidden");
  const search = useRef<HTMLInputElement>(null);
  const message = useRef<HTMLTextAreaElement>(null);
  const menu = useRef<HTMLButtonElement>(null);

  useEffect(() => app.listen(() => redraw()), [app]);

  const begin = () => {
    location.hash = "#/";
    setList("hidden");
    message.current?.focus();
  };

  useEffect(() => {
    if (list === "shown") document.querySelector<HTMLElement>(".sidebar-head .only-narrow")?.focus();
    if (list === "search") search.current?.focus();
  }, [list]);

  const hideList = () => {
    setList("hidden");
    menu.current?.focus();
  };

  // In the step that shows the list, so that Escape never meets a listener that does not know of it.
  useLayoutEffect(() => {
    const pressed = (event: KeyboardEvent) => {
      const command = event.ctrlKey || event.metaKey;
      const key = event.key.toLowerCase();
      if ((command && !event.shiftKey && key === "k") || (key === "/" && !command && !editable(event.target))) {
        event.preventDefault();
        if (matchMedia(NARROW).matches) setList("search");
        search.current?.focus();
      } else if (command && event.shiftKey && key === "o") {
        event.preventDefault();
        begin();
      } else if (key === "escape" && document.querySelector("dialog[open]") === null) {
        if (list !== "hidden") hideList();
        else app.running()?.stop();
      }
    };
    addEventListener("keydown", pressed);
    return () => removeEventListener("keydown", pressed);
  }, [app, list]);

  const { current } = app;
  const title = current?.title || "New conversation";
  useEffect(() => {
    document.title = `${title} · Minke`;
  }, [title]);

  useEffect(() => {
    if (app.ready && current === null) message.current?.focus({ preventScroll: true });
  }, [app.ready, current === null]);

  return (
    <div class={list === "hidden" ? "page" : "page list-open"}>
      <a class="skip" href="#message" onClick={(event) => (event.preventDefault(), message.current?.focus())}>
        Skip to the message
      </a>
      <Sidebar app={app} search={search} begin={begin} close={() => setList("hidden")} />
      <div class="veil" onClick={hideList} />
      <div class="stage">
        <Header app={app} title={title} menu={menu} showList={() => setList("shown")} showSettings={() => setDrawer(true)} />
        {app.notice !== null && (
          <p class="notice" role="alert">
            {app.notice}
            <button type="button" class="quiet" onClick={() => app.dismissNotice()}>
              Close
            </button>
          </p>
        )}
        {app.unreachable !== null && (
          <p class="notice" role="alert">
            {app.unreachable}
            <button type="button" class="quiet" onClick={() => void app.loadModels()}>
              Try again
            </button>
          </p>
        )}
        {!app.lasting && (
          <p class="notice">This browser allows no storage: conversations are gone when the page is closed.</p>
        )}
        <Conversation app={app} key={current?.id ?? "new"} />
        <Composer app={app} area={message} />
      </div>
      <div class="off-screen" role="status" aria-live="polite">
        {app.announcement}
      </div>
      {drawer && <SettingsDrawer app={app} close={() => setDrawer(false)} />}
      {app.keyWanted && <KeyQuestion app={app} />}
    </div>
  );
}
