import type { RefObject } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import type { App, Hit } from "../app";
import { dayGroup } from "../format";
import type { Conversation } from "../model";

interface Props {
  app: App;
  search: RefObject<HTMLInputElement>;
  begin(): void;
  close(): void;
}

export function Sidebar({ app, search, begin, close }: Props) {
  const [query, setQuery] = useState("");
  const [hits, setHits] = useState<Hit[] | null>(null);

  useEffect(() => {
    if (query.trim() === "") {
      setHits(null);
      return;
    }
    let current = true;
    const timer = setTimeout(() => {
      void app.search(query).then((found) => current && setHits(found));
    }, 120);
    return () => {
      current = false;
      clearTimeout(timer);
    };
  }, [query, app.conversations]);

  return (
    <nav class="sidebar" aria-label="Conversations">
      <div class="sidebar-head">
        <span class="name">Minke</span>
        <button type="button" class="quiet" onClick={begin} aria-keyshortcuts="Control+Shift+O">
          New
        </button>
        <button type="button" class="quiet only-narrow" onClick={close}>
          Close
        </button>
      </div>
      <input
        ref={search}
        class="search"
        type="search"
        placeholder="Search"
        aria-label="Search conversations"
        value={query}
        onInput={(event) => setQuery(event.currentTarget.value)}
        onKeyDown={(event) => {
          if (event.key !== "Escape") return;
          event.stopPropagation();
          setQuery("");
          event.currentTarget.blur();
          close();
        }}
      />
      <div class="list">
        {hits !== null ? <Hits hits={hits} close={close} /> : <List app={app} close={close} />}
      </div>
      <Files app={app} />
    </nav>
  );
}

function Hits({ hits, close }: { hits: readonly Hit[]; close(): void }) {
  return (
    <>
      <p class="group" role="status">
        {hits.length === 0 ? "Nothing found" : hits.length === 1 ? "One conversation" : `${hits.length} conversations`}
      </p>
      <ul>
        {hits.map(({ conversation, before, match, after }) => (
          <li key={conversation.id}>
            <a class="entry" href={`#/c/${conversation.id}`} onClick={close}>
              <span class="entry-title">{conversation.title}</span>
              <span class="entry-excerpt">
                {before}
                <mark>{match}</mark>
                {after}
              </span>
            </a>
          </li>
        ))}
      </ul>
    </>
  );
}

function List({ app, close }: { app: App; close(): void }) {
  const now = Date.now();
  const groups = new Map<string, Conversation[]>();
  for (const conversation of app.conversations) {
    const name = dayGroup(conversation.updated, now);
    const group = groups.get(name);
    if (group === undefined) groups.set(name, [conversation]);
    else group.push(conversation);
  }
  return (
    <>
      {[...groups].map(([name, conversations]) => (
        <section key={name} aria-label={name}>
          <h2 class="group">{name}</h2>
          <ul>
            {conversations.map((conversation) => (
              <Entry key={conversation.id} app={app} conversation={conversation} close={close} />
            ))}
          </ul>
        </section>
      ))}
    </>
  );
}

function Entry({ app, conversation, close }: { app: App; conversation: Conversation; close(): void }) {
  const [mode, setMode] = useState<"link" | "actions" | "rename" | "remove">("link");
  const current = app.current?.id === conversation.id;
  if (mode === "rename") {
    return (
      <li>
        <Rename
          title={conversation.title}
          done={(title) => {
            if (title !== null) void app.rename(conversation.id, title);
            setMode("link");
          }}
        />
      </li>
    );
  }
  return (
    <li class={current ? "current" : ""}>
      <div class="entry-row">
        <a class="entry" href={`#/c/${conversation.id}`} aria-current={current ? "page" : undefined} onClick={close}>
          <span class="entry-title">{conversation.title}</span>
        </a>
        {app.isRunning(conversation.id) && <span class="entry-running" role="img" aria-label="is being answered" />}
        <button
          type="button"
          class="quiet more"
          aria-label={`Actions for ${conversation.title}`}
          aria-expanded={mode !== "link"}
          onClick={() => setMode(mode === "link" ? "actions" : "link")}
        >
          <svg viewBox="0 0 16 4" width="14" height="4" aria-hidden="true">
            <circle cx="2" cy="2" r="1.3" />
            <circle cx="8" cy="2" r="1.3" />
            <circle cx="14" cy="2" r="1.3" />
          </svg>
        </button>
      </div>
      {mode === "actions" && (
        <div class="entry-actions">
          <button type="button" class="quiet" onClick={() => setMode("rename")}>
            Rename
          </button>
          <button type="button" class="quiet" onClick={() => void save(app, [conversation.id], conversation.title)}>
            Export
          </button>
          <button type="button" class="quiet" onClick={() => setMode("remove")}>
            Delete
          </button>
        </div>
      )}
      {mode === "remove" && (
        <div class="entry-actions" role="alert">
          <span>Delete it?</span>
          <button type="button" class="quiet danger" onClick={() => void app.remove(conversation.id)}>
            Delete
          </button>
          <button type="button" class="quiet" onClick={() => setMode("link")}>
            Keep
          </button>
        </div>
      )}
    </li>
  );
}

function Rename({ title, done }: { title: string; done(title: string | null): void }) {
  const input = useRef<HTMLInputElement>(null);
  const given = useRef(false);
  useEffect(() => input.current!.select(), []);
  // The field loses the focus once more when it is taken away; the first end counts.
  const end = (title: string | null) => {
    if (!given.current) done(title);
    given.current = true;
  };
  return (
    <input
      ref={input}
      class="rename"
      aria-label="Title"
      maxLength={200}
      defaultValue={title}
      onBlur={(event) => end(event.currentTarget.value)}
      onKeyDown={(event) => {
        if (event.key === "Enter") event.currentTarget.blur();
        if (event.key === "Escape") {
          event.stopPropagation();
          end(null);
        }
      }}
    />
  );
}

function Files({ app }: { app: App }) {
  const file = useRef<HTMLInputElement>(null);
  return (
    <div class="files">
      <button
        type="button"
        class="quiet"
        disabled={app.conversations.length === 0}
        onClick={() => void save(app, app.conversations.map((entry) => entry.id), "conversations")}
      >
        Export all
      </button>
      <button type="button" class="quiet" onClick={() => file.current!.click()}>
        Import
      </button>
      <input
        ref={file}
        type="file"
        accept="application/json,.json"
        hidden
        aria-label="File to import"
        onChange={(event) => {
          const chosen = event.currentTarget.files?.[0];
          if (chosen !== undefined) void app.importFile(chosen);
          event.currentTarget.value = "";
        }}
      />
    </div>
  );
}

/** Hands the conversations to the browser as a file to keep. */
async function save(app: App, ids: readonly string[], title: string): Promise<void> {
  const url = URL.createObjectURL(new Blob([await app.exported(ids)], { type: "application/json" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = `minke ${title.replace(/[^\p{L}\p{N} ._-]/gu, "").slice(0, 60).trim()}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
