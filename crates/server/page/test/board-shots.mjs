// Pictures of the page of a run, to look at: `node test/board-shots.mjs FOLDER [ADDRESS]`, of a real dashboard if one is given.
import { mkdirSync } from "node:fs";
import { board } from "./dashboard.mjs";
import { Reader, launch, sleep } from "./harness.mjs";

const [folder = "test/out", address] = process.argv.slice(2);
mkdirSync(folder, { recursive: true });
const browser = await launch();
try {
  for (const [width, height] of [[1440, 900], [390, 844]]) {
    for (const dark of [false, true]) {
      const stub = address === undefined ? await board() : { url: address, stop() {} };
      const reader = await Reader.create(browser, { width, height, dark, stub, clipboard: false });
      const page = await reader.open();
      for (const view of ["curves", "rollouts"]) {
        await page.evaluate((wanted) => (location.hash = `#view=${wanted}${wanted === "rollouts" ? "&group=1" : ""}`), view);
        await page.waitForSelector({ curves: ".curve", rollouts: ".answer" }[view]);
        await sleep(500);
        if (view === "curves" && width > 1000) {
          const plot = await (await page.$(".plot")).boundingBox();
          await page.mouse.move(plot.x + plot.width * 0.6, plot.y + 60);
          await sleep(200);
        }
        const path = `${folder}/${view}-${width}-${dark ? "dark" : "light"}.png`;
        await page.screenshot({ path, fullPage: view === "curves" });
      }
      if (reader.violations.length > 0) console.log(reader.violations);
      await reader.close();
    }
  }
} finally {
  await browser.close();
}
