// Signing in: with the form, or at once with a link that has the key behind its #. Such a key does not stay in the address bar.

const ANSWERS = {
  401: "This key is not known.",
  403: "This key may not look: it lacks the scope operate.",
  429: "Too many tries. Wait a minute.",
};

const form = document.querySelector("#signin");
const trouble = document.querySelector("#trouble");

form?.addEventListener("submit", async (event) => {
  event.preventDefault();
  const button = form.querySelector("button");
  button.disabled = true;
  await signIn(form.elements.key.value.trim());
  button.disabled = false;
  form.elements.key.select();
});
addEventListener("hashchange", signInByLink);
signInByLink();

async function signInByLink() {
  const key = new URLSearchParams(location.hash.slice(1)).get("key");
  if (key === null) return;
  history.replaceState(null, "", location.pathname + location.search);
  await signIn(key);
}

async function signIn(key) {
  say("");
  try {
    const response = await fetch("/login", { method: "POST", body: new URLSearchParams({ key }) });
    if (response.ok) location.reload();
    else say(ANSWERS[response.status] ?? `The gateway answered ${response.status}.`);
  } catch {
    say("The gateway does not answer.");
  }
}

function say(text) {
  if (trouble) trouble.textContent = text;
}
