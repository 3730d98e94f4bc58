import { Component, type ComponentType, type FunctionComponent, createElement } from "preact";

/** The component, drawn again only when one of its properties is another value. */
export function memo<P extends object>(Inner: FunctionComponent<P>): ComponentType<P> {
  return class extends Component<P> {
    override shouldComponentUpdate(next: P): boolean {
      const now = this.props as Record<string, unknown>;
      const then = next as Record<string, unknown>;
      for (const name in then) if (now[name] !== then[name]) return true;
      for (const name in now) if (!(name in then)) return true;
      return false;
    }

    override render() {
      return createElement(Inner, this.props as P);
    }
  };
}
