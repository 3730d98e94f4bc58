import { render } from "preact";
import { applyTheme, theme } from "../theme";
import { Watch } from "./watch";
import { Page } from "./page";

applyTheme(theme());
const watch = new Watch();
render(<Page watch={watch} />, document.getElementById("page")!);
watch.start();
