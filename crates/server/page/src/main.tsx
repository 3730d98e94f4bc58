import { render } from "preact";
import { App } from "./app";
import { loadMaths } from "./markdown/formula";
import { applyTheme, theme } from "./theme";
import { Page } from "./view/page";

applyTheme(theme());
const app = new App();
render(<Page app={app} />, document.getElementById("page")!);
void app.start();

// What later answers need is fetched when nothing else is to do.
const whenIdle = globalThis.requestIdleCallback ?? ((work: () => void) => setTimeout(work, 500));
whenIdle(() => void loadMaths().catch(() => undefined));
