/**
 * Ring 3. The page that an operator opens first.
 *
 * Promise: it holds no data and calls this worker alone; it runs only the script
 * that was sent with it.
 *
 * @module
 */

import { panelScript } from "./panel_script.ts";

const STYLE =
  `:root{color-scheme:light dark;--ink:#1b1f24;--dim:#59636e;--ground:#fff;--card:#f6f8fa;--edge:#d1d9e0;--blue:#0757ba;--good:#116329;--bad:#b3121f}
@media(prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9da7b3;--ground:#0d1117;--card:#161b22;--edge:#333b45;--blue:#6cb1ff;--good:#56d364;--bad:#ff8a80}}
*{box-sizing:border-box}[hidden]{display:none!important}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);max-width:72rem;margin:auto;padding:1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.05rem;margin:1.8rem 0 .5rem}
header{display:flex;flex-wrap:wrap;gap:0 1rem;align-items:baseline;border-left:.4rem solid var(--dim);padding-left:.8rem}
.fine header{border-color:var(--good)}.attention header{border-color:var(--bad)}
header p,dd,dl,figure,form p{margin:0}
dl{display:grid;grid-template-columns:repeat(auto-fill,minmax(7rem,1fr));gap:.6rem;margin:1rem 0}
dl div,figure,form{background:var(--card);border:1px solid var(--edge);border-radius:.5rem;padding:.6rem .8rem}
dt,small,th,svg text{color:var(--dim);fill:var(--dim);font-size:.85rem;font-weight:400}dd{overflow-wrap:anywhere;font-size:1.15rem;font-variant-numeric:tabular-nums}
form{max-width:26rem;margin:1.5rem 0;display:grid;gap:.6rem}
button,input{font:inherit;color:inherit;background:var(--ground);border:1px solid var(--dim);border-radius:.4rem;padding:.4rem .9rem;min-height:2.5rem}
button{cursor:pointer}button:hover{border-color:var(--blue);color:var(--blue)}:focus-visible{outline:3px solid var(--blue);outline-offset:2px}
[aria-busy] button{opacity:.6;cursor:progress}
.verbs{display:flex;flex-wrap:wrap;gap:.5rem;align-items:center}#leave{margin-left:auto}
ul{list-style:none;padding:0;margin:1rem 0}li{border-left:.25rem solid var(--dim);padding:.2rem .8rem;margin:.4rem 0}.attention li.attention{border-color:var(--bad)}
code{display:block;color:var(--dim);overflow-wrap:anywhere}
.two{display:grid;grid-template-columns:repeat(auto-fit,minmax(18rem,1fr));gap:0 1rem}.two>*{min-width:0}
svg{display:block;max-width:100%}rect{fill:var(--blue)}path{fill:none;stroke:var(--blue);stroke-width:1.5}line{stroke:var(--edge)}
progress{display:block;width:100%;accent-color:var(--blue)}
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.35rem .8rem .35rem 0;border-bottom:1px solid var(--edge);white-space:nowrap}tbody th{color:var(--ink);font-size:1rem}
#letters td:nth-of-type(5){white-space:normal;min-width:14rem}`;

const wide = (id: string, name: string) =>
  `<div class=wide role=region aria-label="${name}" tabindex=0><table id=${id}></table></div>`;

const BODY =
  `<header><h1>LibSQL Sync</h1><p id=state role=status></p></header><main><form id=door><label for=secret>The worker's secret</label><input id=secret type=password autocomplete=off required><button>Open</button><p><small>It stays in this tab and is deleted with it.</small></p></form><div id=all hidden><dl id=now></dl><ul id=warnings></ul><div class=verbs role=group aria-label=Verbs><button id=sync>Sync</button><button id=verify>Verify</button><button id=backfill>Backfill</button><output id=said></output><button id=leave>Forget the secret</button></div><div class=two><section><h2>Lag</h2><figure id=lag></figure></section><section><h2>Messages a minute</h2><figure id=rate></figure></section></div><h2>Walk</h2><div id=walk></div><h2>Tables</h2>${
    wide("tables", "Tables")
  }<section id=parked><h2>Parked changes</h2>${
    wide("letters", "Parked changes")
  }<p id=all-letters></p></section><h2>Last syncs</h2>${
    wide("syncs", "Last syncs")
  }</div></main>`;

/**
 * Makes the page, and the headers that limit what a browser runs in it.
 *
 * @param nonce A random text, for this answer alone.
 * @returns The page and its headers.
 */
export function panel(
  nonce: string,
): { html: string; headers: Record<string, string> } {
  const policy = [
    "default-src 'none'",
    `script-src 'nonce-${nonce}'`,
    `style-src 'nonce-${nonce}'`,
    "connect-src 'self'",
    "img-src data:",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ];
  return {
    html:
      `<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content="width=device-width"><title>LibSQL Sync</title><link rel=icon href="data:,"><style nonce=${nonce}>${STYLE}</style>${BODY}<script nonce=${nonce}>(${panelScript})()</script>`,
    headers: {
      "Content-Security-Policy": policy.join("; "),
      "Referrer-Policy": "no-referrer",
      "X-Content-Type-Options": "nosniff",
      "Cross-Origin-Opener-Policy": "same-origin",
    },
  };
}
