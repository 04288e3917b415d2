// The key that the reader types in, kept in this tab alone.

import { getKey, isKeyed, setKey } from "./api.js";
import { $ } from "./dom.js";

/** Calls `start` once there is a key, or at once where none is needed; again for each new key. */
export function withKey(start) {
  if (!isKeyed) {
    start();
    return;
  }
  const field = $("key-value");
  const forget = $("key-forget");
  const begin = () => {
    forget.hidden = !getKey();
    if (getKey()) start();
    else field.focus();
  };
  $("key").addEventListener("submit", (event) => {
    event.preventDefault();
    setKey(field.value.trim());
    field.value = "";
    begin();
  });
  forget.addEventListener("click", () => {
    setKey(null);
    location.replace(location.pathname);
  });
  begin();
}
