// What is maths, what is a price, what is code: each sample with what the page must show. Maths is written ⟦source⟧.
import { Reader, equal, importFile } from "./harness.mjs";

const SAMPLES = [
  ["$x$", "⟦x⟧"],
  ["$x^2+y^2$", "⟦x^2+y^2⟧"],
  ["Let $n$ be even.", "Let ⟦n⟧ be even."],
  ["$a$, $b$ and $c$", "⟦a⟧, ⟦b⟧ and ⟦c⟧"],
  ["($x$)", "(⟦x⟧)"],
  ["the $n$th term", "the ⟦n⟧th term"],
  ["$k$-th", "⟦k⟧-th"],
  ["设$x$为整数", "设⟦x⟧为整数"],
  ["$5$ apples", "⟦5⟧ apples"],
  ["$2+3=5$", "⟦2+3=5⟧"],
  ["$x_1$ and $x_2$", "⟦x_1⟧ and ⟦x_2⟧"],
  ["*so $a*b*c$ is*", "so ⟦a*b*c⟧ is"],
  ["**$x_i$**", "⟦x_i⟧"],
  ["$\\frac{1}{2}$", "⟦\\frac{1}{2}⟧"],
  ["$\\$5$", "⟦\\$5⟧"],
  ["$\\text{speed of light}$", "⟦\\text{speed of light}⟧"],
  ["$3 \\text{ km}$", "⟦3 \\text{ km}⟧"],
  ["\\(x+1\\)", "⟦x+1⟧"],
  ["\\( x+1 \\)", "⟦x+1⟧"],
  ["\\[x+1\\]", "⟦x+1⟧"],
  ["\\[\nx+1\n\\]", "⟦x+1⟧"],
  ["$$x+1$$", "⟦x+1⟧"],
  ["$$\nx\n+1\n$$", "⟦x\n+1⟧"],
  ["so $$x$$ follows", "so ⟦x⟧ follows"],
  ["text\n$$\nx\n$$\ntext", "text ⟦x⟧ text"],
  ["- item\n  \\[\n  y\n  \\]", "item ⟦y⟧"],
  ["1. a\n   $$z$$\n2. b", "a ⟦z⟧ b"],
  ["\\boxed{42}", "⟦\\boxed{42}⟧"],
  ["$\\boxed{42}$", "⟦\\boxed{42}⟧"],
  ["The answer is \\boxed{\\frac{1}{2}}.", "The answer is ⟦\\boxed{\\frac{1}{2}}⟧."],
  ["| $a$ | b |\n|---|---|\n| $c_1$ | 2 |", "⟦a⟧ b ⟦c_1⟧ 2"],
  ["# About $x$", "About ⟦x⟧"],
  ["It costs $5 and $6.", "It costs $5 and $6."],
  ["$5", "$5"],
  ["from $5 to $10", "from $5 to $10"],
  ["$5-$10", "$5-$10"],
  ["$100,$200", "$100,$200"],
  ["I paid $20 for 2 of them, that is 10$ each", "I paid $20 for 2 of them, that is 10$ each"],
  ["$1,000 (or $2,000)", "$1,000 (or $2,000)"],
  ["US$5 and A$7$", "US$5 and A$7$"],
  ["$ x $", "$ x $"],
  ["a $ b $ c", "a $ b $ c"],
  ["\\$x\\$", "$x$"],
  ["$x", "$x"],
  ["echo $HOME and $PATH", "echo $HOME and $PATH"],
  ["$PATH:$HOME", "$PATH:$HOME"],
  ["`$x$`", "$x$"],
  ["`\\(x\\)` and `$5`", "\\(x\\) and $5"],
  ["```\n$x$ \\[y\\]\n```", "$x$ \\[y\\]"],
  ["    $x$", "$x$"],
  ["$a\n\nb$", "$a b$"],
  ["`a$` and `b$`", "a$ and b$"],
  ["earned $5 million; spent $3 million", "earned $5 million; spent $3 million"],
  ["A \\\\(b\\\\)", "A \\(b\\)"],
];

export async function run(browser) {
  const messages = [];
  for (const [index, [text]] of SAMPLES.entries()) {
    const parent = index === 0 ? null : `a${index - 1}`;
    messages.push({ id: `q${index}`, parent, role: "user", text: "?", created: 2 * index });
    messages.push({ id: `a${index}`, parent: `q${index}`, role: "assistant", text, created: 2 * index + 1 });
  }
  const conversations = [{ conversation: { title: "Maths", created: 1, updated: 1 }, messages }];
  const reader = await Reader.create(browser);
  try {
    const page = await reader.open();
    await page.waitForSelector(".files");
    await importFile(page, JSON.stringify({ format: "minke-conversations", version: 1, conversations }));
    await page.click(".list .entry");
    await page.waitForSelector(".katex");
    const shown = await page.$$eval(".prose", (found) =>
      found.map((prose) => {
        const copy = prose.cloneNode(true);
        for (const chrome of copy.querySelectorAll("figcaption")) chrome.remove();
        for (const maths of copy.querySelectorAll(".maths")) {
          const source = maths.querySelector("annotation")?.textContent ?? `not set: ${maths.textContent}`;
          maths.replaceChildren(`⟦${source}⟧`);
        }
        // Blocks are told apart by a space.
        for (const block of copy.querySelectorAll("p, li, td, th, .maths-display")) block.prepend(" "), block.append(" ");
        return copy.textContent.replace(/⟦[^⟧]*⟧|\s+/g, (part) => (part.startsWith("⟦") ? part : " ")).trim();
      }),
    );
    const wrong = SAMPLES.flatMap(([text, wanted], index) =>
      shown[index] === wanted ? [] : [`${JSON.stringify(text)}: ${JSON.stringify(shown[index])}, wanted ${JSON.stringify(wanted)}`],
    );
    equal(wrong, [], "samples");
    equal(reader.violations, [], "violations");
    return `${SAMPLES.length} samples`;
  } finally {
    await reader.close();
  }
}
